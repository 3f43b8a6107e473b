"""Tables as text: Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Section:
    """Some tables under a heading, and what is to be said of them."""

    heading: str
    notes: Sequence[str]
    tables: Sequence[tuple[str, pd.DataFrame]]


def markdown_table(table: pd.DataFrame) -> str:
    """A table as Markdown; what is not there is a dash."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.fillna("–").to_numpy()]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def markdown(name: str, notes: Sequence[str], given: Sequence[Section]) -> str:
    """A report as Markdown.

    Args:
        name: of the sweep.
        notes: what is to be said of all of it.
        given: its sections.
    """
    parts = [f"# {name}", *notes]
    for section in given:
        if section.tables:
            parts += [f"## {section.heading}", *section.notes]
            for title, table in section.tables:
                parts += [f"### {title}", markdown_table(table)]
    return "\n\n".join(parts) + "\n"


LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"±": r"$\pm$", "≈": r"$\approx$", "≠": r"$\neq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"},
    **{"→": r"$\to$", "†": r"$^\dagger$", "–": "--", "−": "$-$", "²": "$^2$", "χ": r"$\chi$"},
    **{"≥": r"$\geq$", "°": r"$^\circ$", "·": r"$\cdot$", "“": "``", "”": "''", "×": r"$\times$"},
}
"""What LaTeX takes in place of a character."""


def latex_text(text: object) -> str:
    """Text as LaTeX, a minus before a number as one."""
    told = "".join(LATEX.get(sign, sign) for sign in str(text))
    return f"$-${told[1:]}" if told[:1] == "-" and told[1:2].isdigit() else told


def latex(name: str, given: Sequence[Section]) -> str:
    r"""The tables as LaTeX, one ``table`` each, for a document with ``\usepackage{booktabs}``."""
    parts = [r"% \usepackage{booktabs} in the preamble; \input this file, or copy a table of it."]
    all_tables = [(one.heading, title, table) for one in given for title, table in one.tables]
    for number, (heading, title, table) in enumerate(all_tables):
        label = f"tab:{name}-{number + 1}".replace("_", "-").replace(" ", "-")
        rows = [table.columns, *table.fillna("–").to_numpy()]
        lines = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering\small",
                    rf"\caption{{{latex_text(heading)}: {latex_text(title)}.}}",
                    rf"\label{{{label}}}",
                    rf"\begin{{tabular}}{{l{'r' * (table.shape[1] - 1)}}}",
                    r"\toprule",
                    lines[0],
                    r"\midrule",
                    *lines[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"
