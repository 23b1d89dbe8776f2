"""A table of Markdown cells, written as Markdown or LaTeX."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence

STAR = "★"


@dataclasses.dataclass
class Sheet:
    """A table with rows in blocks, and numbered footnotes.

    Args:
        title: its title.
        columns: the group (a data set, or "") and the name of each column.
        blocks: blocks of rows of cells. A cell is Markdown, of which `latex` knows `**`, `<u>` and
            `<sup>`.
        captions: lines under the table.
    """

    title: str
    columns: list[tuple[str, str]]
    blocks: list[list[list[str]]]
    captions: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> int:
        """Add a footnote, unless the text is there already, and return its number."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1

    def markdown(self) -> str:
        """The table and its footnotes, without the title."""
        rows = list(self.blocks[0])
        for block in self.blocks[1:]:
            rows += [[""] * len(self.columns), *block]
        lines = [markdown_table([f"{group} {name}".strip() for group, name in self.columns], rows)]
        lines += [f"{line}  " for line in self._under()]
        return "\n".join(lines).rstrip() + "\n"

    def latex(self) -> str:
        """The table as a `table` environment; needs `\\usepackage{booktabs,amssymb}`."""
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.title)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}", r"\toprule"]
        groups = [(g, len(list(x))) for g, x in itertools.groupby(g for g, _ in self.columns[1:])]
        if groups[0][0]:
            spans = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(group)}}}" for group, width in groups]
            lines.append(" & ".join(["", *spans]) + r" \\")
        for rows in ([[name for _, name in self.columns]], *self.blocks):
            lines += [" & ".join(map(_latex, row)) + r" \\" for row in rows]
            lines.append(r"\midrule")
        lines[-1:] = [r"\bottomrule", r"\end{tabular}", ""]
        lines += [rf"\par\footnotesize {_latex(line)}" for line in self._under()]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def _under(self) -> list[str]:
        notes = [f"<sup>{i}</sup> {note}" for i, note in enumerate(self.notes, start=1)]
        return [*self.captions, *notes]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    head_line, *lines = (
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for line in (head, *rows)
    )
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([head_line, rule, *lines]) + "\n"


_LATEX = {
    "<u>": r"\underline{", "</u>": "}", "<b>": r"\textbf{", "</b>": "}", "<sup>": "$^{",
    "</sup>": "}$", STAR: r"$^\bigstar$", "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%",
    "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "±": r"$\pm$", "α": r"$\alpha$",
    "τ": r"$\tau$", "…": r"\dots{}", "–": "--", "<": r"$<$", ">": r"$>$", "≥": r"$\geq$",
    "^": r"\^{}", "~": r"\textasciitilde{}",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def _latex(markdown: str) -> str:
    html = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", markdown)
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], html)
