"""Files that are whole or absent: written beside their place, flushed, renamed into it.

The name of a temporary file is unique over processes and machines. It begins with a dot and ends
with ``.tmp``, which nothing reads; a process that is killed leaves it, any other end deletes it.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from typing import BinaryIO


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its place, with the mode of the umask, as the block ends.

    Args:
        path: its place, in a folder that exists; what is there already stays until then, and for
            good where the block raises.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except IsADirectoryError:
        raise IsADirectoryError(
            EISDIR, "A folder is in place of a file; delete it", str(path)
        ) from None
    finally:
        with suppress(OSError):  # the error that is under way says more
            temporary.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Write a file, or replace it.

    Args:
        path: in a folder that exists.
        content: all of it.
    """
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
