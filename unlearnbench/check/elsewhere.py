"""A method's run in another process, with another hash seed."""

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
    """A process of its own, in which strings and sets have other hashes; it ends with this one."""

    def __init__(self) -> None:
        path = os.pathsep.join(word for word in sys.path if word)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from unlearnbench.check.elsewhere import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": path},
        )

    def digests(self, option: Option) -> list[str]:
        """What a method makes there."""
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
    """The other process of the process of this number; a forked one does not share it."""
    return _Elsewhere()


def serve() -> None:
    """Answer the questions of the process that started this one, until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a method prints is no answer
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
        except Exception as error:  # noqa: BLE001 - whatever it raises is the verdict
            answer = RuntimeError(as_text(error))
        pickle.dump(answer, answers)
        answers.flush()


def _digests(option: Option) -> list[str]:
    """What a method makes here: with the next seed first, then with its own."""
    for words in ((), ("forget=by_class",), ("model=resnet18",)):
        found = small("train.call.epochs=2", *words, **SIZES).under(option)
        try:
            with redirect_stdout(io.StringIO()):
                return [digest_of(found.run(seed=1)), digest_of(found.run())]
        except Skip as error:
            reason = error
    raise reason
