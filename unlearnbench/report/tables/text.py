"""Tables as text: Markdown and LaTeX. Cell contents are escaped as text, never markup."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from unlearnbench.core.errors import printable


@dataclass(frozen=True)
class Section:
    """Tables under a heading, with notes."""

    heading: str
    notes: Sequence[str]
    tables: Sequence[tuple[str, pd.DataFrame]]


MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown reads as markup; an underscore between letters is not one."""


def markdown_text(text: object) -> str:
    """Escape text for Markdown, in one line: no markup, no HTML."""
    plain = escape(printable(" ".join(str(text).split())), quote=False)
    return MARKDOWN.sub(r"\\\g<0>", plain)


def markdown_table(table: pd.DataFrame) -> str:
    """A table as Markdown; missing values are a dash."""
    head = [list(map(markdown_text, table.columns)), ["---"] * table.shape[1]]
    rows = [list(map(markdown_text, line)) for line in table.fillna("–").to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*head, *rows])


def markdown(name: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
    """A report as Markdown.

    Args:
        name: name of the sweep.
        notes: notes on the whole report, as plain text.
        sections: sections of the report; their notes are Markdown.
    """
    parts = [f"# {markdown_text(name)}", *map(markdown_text, notes)]
    for section in sections:
        if section.tables:
            parts += [f"## {section.heading}", *section.notes]
            for title, table in section.tables:
                parts += [f"### {markdown_text(title)}", markdown_table(table)]
    return "\n\n".join(parts) + "\n"


LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "\0": "{}",  # between two hyphens, which would form a dash
    **{"±": r"$\pm$", "≈": r"$\approx$", "≠": r"$\neq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"},
    **{"→": r"$\to$", "†": r"$^\dagger$", "–": "--", "−": "$-$", "²": "$^2$", "χ": r"$\chi$"},
    **{"≥": r"$\geq$", "°": r"$^\circ$", "·": r"$\cdot$", "“": "``", "”": "''", "×": r"$\times$"},
}
"""Character → its LaTeX code."""


def latex_text(text: object) -> str:
    """Escape text for LaTeX, in one line; a leading hyphen before a digit becomes a minus."""
    plain = printable(" ".join(str(text).split()))
    escaped = "".join(LATEX.get(sign, sign) for sign in re.sub("-(?=-)", "-\0", plain))
    if escaped[:1] in ("[", "*"):  # LaTeX reads it as an argument of the row end before
        return f"{{}}{escaped}"
    return f"$-${escaped[1:]}" if escaped[:1] == "-" and escaped[1:2].isdigit() else escaped


def latex(name: str, sections: Sequence[Section]) -> str:
    r"""The tables as LaTeX, one ``table`` each, for a document with ``\usepackage{booktabs}``."""
    parts = [r"% \usepackage{booktabs} in the preamble; \input this file, or copy a table of it."]
    all_tables = [
        (section.heading, title, table) for section in sections for title, table in section.tables
    ]
    for number, (heading, title, table) in enumerate(all_tables):
        label = re.sub(r"[^A-Za-z0-9:.-]+", "-", f"tab:{name}-{number + 1}")
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
