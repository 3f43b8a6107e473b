"""From overrides to cells: compose, check, tuned settings."""
