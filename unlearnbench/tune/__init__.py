"""The command ``unlearnbench tune``."""
