"""Errors that end in a row."""


class Skip(Exception):
    """A cell that cannot be computed on principle; its row says ``skipped`` and this reason."""


class Failed(RuntimeError):
    """An artifact could not be made, and others that need it cannot either."""


RAISED = Exception, SystemExit
"""What code of an option may raise that is about the cell, and not about the process."""
