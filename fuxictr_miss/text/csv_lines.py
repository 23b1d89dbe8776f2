"""The lines of a CSV in which each line is a row: a quote or an encoding must not swallow rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fuxictr_miss.errors import InputError

_BLOCK_BYTES = 1 << 22


def check_separator(separator: str) -> None:
    """Refuse what cannot stand between the fields of a CSV.

    Raises:
        InputError: it is no single ASCII character, or a letter, a digit, a quote or a line end.
    """
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
        raise InputError(
            f"--separator {separator!r} must be a single ASCII character. Write the log with "
            f"another one first, such as by: sed 's/::/\\t/g'."
        )
    if separator.isalnum():
        raise InputError(
            f"--separator {separator!r} is a letter or digit. If a tab is meant, quote it for the "
            f"shell: --separator '\\t'."
        )


def numbered_blocks(file: str) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file in blocks, each with the number of its first line.

    Raises:
        InputError: a line is not UTF-8.
    """
    first = 1
    with open(file, "rb") as lines:
        while block := lines.read(_BLOCK_BYTES):
            block += lines.readline()
            _check_text(file, block, first)
            yield first, block
            first += block.count(b"\n")


def check_line_ends(file: str, header: bytes) -> None:
    """Refuse a file whose lines end as on old Macs: its header, without a line end, goes on."""
    if b"\r" in header:
        raise InputError(f"{file}: its lines end by \\r alone; convert them by: tr '\\r' '\\n'.")


def check_fields(file: str, first: int, block: bytes, separator: str, width: int) -> None:
    """Refuse a line with another number of separators than `width` fields need.

    polars reads a line that is cut off as empty fields.

    Args:
        first: the number of the first line in `block`.
    """
    values = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    fields = np.searchsorted(np.flatnonzero(values == ord(separator)), ends)
    odd = np.flatnonzero(np.diff(fields, prepend=0) != width - 1)
    if len(odd):
        raise odd_fields(file, first + int(odd[0]), width)


def odd_fields(file: str, line: int, width: int, since: str = "") -> InputError:
    """The error for a line that has not the `width` fields of the header."""
    return InputError(
        f"{file}, line {line}{since}: it has not the {width} fields of the header; mend or remove "
        "it."
    )


def line_count(block: bytes) -> int:
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _check_text(file: str, block: bytes, first: int) -> None:
    try:
        if not block.isascii():
            block.decode()
    except UnicodeDecodeError as error:
        line = first + block[: error.start].count(b"\n")
        raise InputError(
            f"{file}, line {line}: {block[error.start : error.end]!r} is not UTF-8; save the file "
            "as UTF-8."
        ) from error
