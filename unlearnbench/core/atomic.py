"""Files that are complete or absent: a temporary file is written, flushed and renamed.

The name of a temporary file is unique across processes and machines. It begins with a dot and ends
with ``.tmp``; no reader opens such a file. Only a process that is killed leaves one behind.
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
    """Open a file for writing that replaces ``path`` when the block ends, with the umask's mode.

    Args:
        path: the final path, in a folder that exists. An existing file stays until the block ends,
            and is not replaced if the block raises.

    Raises:
        IsADirectoryError: ``path`` is a folder.
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
        with suppress(OSError):  # the exception being raised is more informative
            temporary.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Write a file, or replace it.

    Args:
        path: the file, in a folder that exists.
        content: the complete content; text is encoded as UTF-8.
    """
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
