"""Run a method in another process, with another hash seed."""

import io
import os
import pickle
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache

import torch

from unlearnbench.check.subject import SIZES, as_text, digest_of, small
from unlearnbench.core.cell import Option
from unlearnbench.core.errors import Skip


class _Elsewhere:
    """A separate process with another hash seed; it ends with this process."""

    def __init__(self) -> None:
        path = os.pathsep.join(word for word in sys.path if word)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from unlearnbench.check.elsewhere import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": path},
        )

    def digests(self, option: Option) -> list[str]:
        """Return the digests of the models that a method returns in that process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((option, torch.get_num_threads()), self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, Exception):
            raise answer
        made: list[str] = answer
        return made


@cache
def elsewhere(process: int) -> _Elsewhere:
    """Return the other process of a process id; a forked process starts its own."""
    return _Elsewhere()


def serve() -> None:
    """Answer the requests of the parent process until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # keeps output of a method out of the pipe
    while True:
        try:
            option, threads = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        torch.set_num_threads(threads)
        answer: list[str] | Exception
        try:
            answer = _digests(option)
        except Skip as error:
            answer = Skip(str(error))
        except ValueError as error:
            answer = ValueError(str(error))
        except Exception as error:  # noqa: BLE001 - any exception is a verdict
            answer = RuntimeError(as_text(error))
        pickle.dump(answer, answers)
        answers.flush()


def _digests(option: Option) -> list[str]:
    """Return the digests of the models of a method: of the next seed first, then of its seed."""
    for overrides in ((), ("forget=by_class",), ("model=resnet18",)):
        subject = small("train.call.epochs=2", *overrides, **SIZES).under(option)
        try:
            with redirect_stdout(io.StringIO()):
                return [digest_of(subject.run(seed=1)), digest_of(subject.run())]
        except Skip as error:
            reason = error
    raise reason
