"""Folders of the package and of its options."""

from importlib import resources
from pathlib import Path


def package_folder() -> Path:
    """The folder of the package's code."""
    return Path(str(resources.files(__name__.partition(".")[0]))).resolve()


def options_folder() -> Path:
    """The folder of the YAML options: inside an installed package, next to it in a checkout."""
    installed = package_folder() / "conf"
    return installed if installed.is_dir() else package_folder().parent / "conf"
