"""Which settings get figures of their own, and who draws them."""

import dataclasses
import re
from pathlib import Path

import pytest
from small_study import make

from unlearnbench.report import figures, files
from unlearnbench.report.analysis.study import Study
from unlearnbench.report.figures import drawing, style

DIGITS, MNIST = "digits · cnn", "mnist · cnn"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make(tmp_path_factory.mktemp("results"))


def test_each_of_a_few_settings_has_figures(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MOST", 2)
    assert drawing.left_out(study) == []


def test_of_many_settings_those_have_that_are_asked_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "MOST", 1)
    assert drawing.left_out(study) == [DIGITS, MNIST]
    assert drawing.left_out(study, "mnist*") == [DIGITS]
    assert drawing.left_out(study, "*") == []
    with pytest.raises(ValueError, match=f"--figures minst: .* there is {MNIST}"):
        drawing.left_out(study, "minst")


def test_figures_of_all_settings_are_drawn_whatever_is_left_out(study: Study) -> None:
    told = {(kind, setting) for kind, setting, _ in figures.drawings(study, [DIGITS])}
    assert {("heatmap", ""), ("ranks", ""), ("pareto", MNIST)} <= told
    assert DIGITS not in {setting for _, setting in told}
    kinds = {kind for kind, setting, _ in figures.drawings(study) if setting == DIGITS}
    assert kinds == {"pareto", "spread", "two_outputs", "leaks", "roc", "along"}


def test_all_are_written_as_svg_and_pdf_the_same_bytes_by_several_processes_and_one(
    study: Study, tmp_path: Path
) -> None:
    with drawing.beside(study, []) as drawn:
        made = {path.name: path.read_bytes() for path in drawn()}
    kinds = {name.partition("-")[0].partition(".")[0] for name in made}
    assert kinds == {"heatmap", "ranks", "pareto", "spread", "two_outputs", "leaks", "roc", "along"}
    assert {name.rpartition(".")[2] for name in made} == {"svg", "pdf"}
    alone = dataclasses.replace(study, out=tmp_path)
    assert made == {path.name: path.read_bytes() for path in figures.draw(alone)}


def test_a_pdf_has_one_font_that_can_be_searched(tmp_path: Path) -> None:
    figure, grid = style.panels(1, 1, 2.0)
    grid[0, 0].set_yticks([0.2, 0.8], ["finetune", "influence"])  # with ligatures
    _, pdf = style.save(figure, tmp_path / "figure")
    assert len(set(re.findall(rb"/BaseFont /(\w+)\+", pdf.read_bytes()))) == 1


def test_the_page_tells_how_the_others_are_drawn(study: Study) -> None:
    page = files.report(study, "mnist*")[-1].read_text()
    assert f"unlearnbench report small --figures '{DIGITS}'" in page
