"""What options say of themselves, without importing what they call."""

import subprocess
import sys

import pytest

from unlearnbench.core.resources import options_folder
from unlearnbench.report.page import options

METHODS = sorted(path.stem for path in (options_folder() / "method").glob("*.yaml"))


@pytest.mark.parametrize("name", METHODS)
def test_each_method_says_what_it_does_in_a_sentence(name: str) -> None:
    told = options.told("method", name)
    assert told.known
    assert told.says.endswith(".")
    assert len(told.says.split()) > 4


def test_a_comment_says_more_than_what_is_called() -> None:
    assert options.told("method", "second_retrain").says.startswith("The noise floor")
    assert (
        options.told("method", "finetune").says == "FT, finetuning: go on training on retain rows."
    )


def test_an_option_of_another_installation_has_its_name_alone() -> None:
    assert options.told("method", "theirs") == options.Told("theirs")
    assert options._docstring("theirs.unknown.method") == options._docstring("") == ""


def test_settings_are_those_that_are_called() -> None:
    told = options.told("method", "scrub").settings
    assert told["call.sgd.lr"] == 5e-3
    assert "call._target_" not in told


def test_nothing_of_torch_is_imported_for_it() -> None:
    program = (
        "import sys; from unlearnbench.report.page import options; "
        "assert options.told('method', 'scrub').says; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
