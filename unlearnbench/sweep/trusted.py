"""Check that a SLURM job unpickles only files of its own user, because unpickling runs code.

The folder of a run can be shared with a group. The folder inside it with the pickles has mode 700,
and a job ends if another user owns it or others have access. A member of the group can still
replace it by another folder, so the job opens the folder, checks the open descriptor, and reads
through that descriptor.

A task of SLURM runs it as ``python -m unlearnbench.sweep.trusted FOLDER``.
"""

import os
import stat
import sys
from pathlib import Path


def check(folder: Path) -> int:
    """Open a folder to which only this user has access; return its descriptor.

    Args:
        folder: the folder, not a symbolic link.

    Raises:
        PermissionError: another user owns the folder, or its mode gives access to others.
        OSError: the folder cannot be opened, or is a symbolic link.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & 0o077:
        os.close(descriptor)
        must = f"must be of user {os.geteuid()} with mode 700"
        raise PermissionError(f"{folder} is of user {status.st_uid} with mode {mode:o}: {must}")
    return descriptor


def main() -> None:
    """Run submitit's job from the folder, if only this user has access to it."""
    from submitit.core.submission import process_job

    try:
        descriptor = check(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"unlearnbench: nothing is unpickled: {error}")
    process_job(f"/proc/{os.getpid()}/fd/{descriptor}")


if __name__ == "__main__":
    main()
