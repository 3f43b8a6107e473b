"""Where the package and its options lie."""

from importlib import resources
from pathlib import Path


def package_folder() -> Path:
    """Where the code of the package lies."""
    return Path(str(resources.files(__name__.partition(".")[0]))).resolve()


def options_folder() -> Path:
    """Where the YAML options lie: inside an installed package, beside it in a checkout."""
    installed = package_folder() / "conf"
    return installed if installed.is_dir() else package_folder().parent / "conf"
