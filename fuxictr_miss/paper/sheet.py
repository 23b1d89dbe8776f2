"""Format a table of text cells as Markdown and LaTeX."""

from __future__ import annotations

import dataclasses

STAR = "★"


@dataclasses.dataclass(frozen=True)
class Cell:
    text: str = ""
    bold: bool = False
    underlined: bool = False
    starred: bool = False
    notes: tuple[int, ...] = ()  # numbers of footnotes


@dataclasses.dataclass
class Sheet:
    """A table with columns in groups (one per data set), rows in blocks, and numbered footnotes.

    `groups` has the name and the number of columns of each group; the first column is in none.
    """

    title: str
    columns: list[str]
    groups: list[tuple[str, int]]
    blocks: list[list[list[Cell]]] = dataclasses.field(default_factory=list)
    captions: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> int:
        """Add a footnote, unless the text is there already, and return its number."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1

    def markdown(self) -> str:
        names = [name for name, width in self.groups for _ in range(width)]
        head = [self.columns[0]]
        head += [f"{n} {c}".strip() for n, c in zip(names, self.columns[1:], strict=True)]
        lines = [f"# {self.title}", "", _row(head)]
        lines.append("|---|" + "---:|" * (len(head) - 1))
        for i, block in enumerate(self.blocks):
            if i:
                lines.append(_row([""] * len(head)))
            lines += [_row([_markdown(cell) for cell in row]) for row in block]
        lines += ["", *(f"{caption}  " for caption in self.captions)]
        lines += [f"<sup>{i}</sup> {note}  " for i, note in enumerate(self.notes, start=1)]
        return "\n".join(lines).rstrip() + "\n"

    def latex(self) -> str:
        """The table as a `table` environment; needs `\\usepackage{booktabs,amssymb}`."""
        width = len(self.columns)
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_plain(self.title)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule"]
        if any(name for name, _ in self.groups):
            spans = [rf"\multicolumn{{{n}}}{{c}}{{{_plain(name)}}}" for name, n in self.groups]
            lines.append(" & ".join(["", *spans]) + r" \\")
        lines.append(" & ".join(map(_plain, self.columns)) + r" \\")
        for block in self.blocks:
            lines.append(r"\midrule")
            lines += [" & ".join(map(_latex, row)) + r" \\" for row in block]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
        lines += [rf"\par\footnotesize {_plain(caption)}" for caption in self.captions]
        lines += [
            rf"\par\footnotesize $^{{{i}}}$ {_plain(note)}"
            for i, note in enumerate(self.notes, start=1)
        ]
        return "\n".join([*lines, r"\end{table}"]) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _markdown(cell: Cell) -> str:
    text = f"<u>{cell.text}</u>" if cell.underlined else cell.text
    text = f"**{text}**" if cell.bold else text
    text += STAR if cell.starred else ""
    return text + (f"<sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else "")


def _latex(cell: Cell) -> str:
    text = _plain(cell.text)
    text = rf"\underline{{{text}}}" if cell.underlined else text
    text = rf"\textbf{{{text}}}" if cell.bold else text
    text += r"$^\bigstar$" if cell.starred else ""
    return text + (rf"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")


_LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "±": r"$\pm$", "α": r"$\alpha$", "τ": r"$\tau$", "…": r"\dots{}",
    "–": "--", STAR: r"$\bigstar$", "<": r"$<$", ">": r"$>$", "≥": r"$\geq$", "^": r"\^{}",
    "~": r"\textasciitilde{}",
}  # fmt: skip


def _plain(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
