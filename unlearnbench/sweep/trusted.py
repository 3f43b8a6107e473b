"""What a job of SLURM's unpickles must be its own user's: to unpickle is to run what is written.

The folder of a run is shared with a group, the folder inside it with the pickles is not: it is its
owner's alone, and a job that finds it to be anybody else's, or open to others, ends. A group can
still rename it and put another in its place; so the job opens the folder, looks at what is open,
and reads from that.

Run by a task of SLURM's as ``python -m unlearnbench.sweep.trusted FOLDER``.
"""

import os
import stat
import sys
from pathlib import Path


def check(folder: Path) -> int:
    """Open a folder that is this user's alone; returns its descriptor.

    Args:
        folder: no symbolic link.

    Raises:
        PermissionError: it is somebody else's, or others may enter it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    about = os.fstat(descriptor)
    mode = stat.S_IMODE(about.st_mode)
    if about.st_uid != os.geteuid() or mode & 0o077:
        os.close(descriptor)
        must = f"must be of user {os.geteuid()} with mode 700"
        raise PermissionError(f"{folder} is of user {about.st_uid} with mode {mode:o}: {must}")
    return descriptor


def main() -> None:
    """Do what submitit has been handed for this job, if its folder is this user's alone."""
    from submitit.core.submission import process_job

    try:
        descriptor = check(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"unlearnbench: nothing is unpickled: {error}")
    process_job(f"/proc/{os.getpid()}/fd/{descriptor}")


if __name__ == "__main__":
    main()
