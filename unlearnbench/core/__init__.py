"""Plain types that every other part of the package imports."""
