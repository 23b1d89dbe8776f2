"""The lines of raw files, plain or packed, in blocks of whole lines and under one progress bar."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl
from tqdm import tqdm

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess.packed_files import CutOffError, unpacked

BLOCK_BYTES = 32 << 20  # of unpacked text; what is in memory at once is a few of these
LONGEST_LINE = 64 << 20


class LineBlock(NamedTuple):
    """Consecutive whole lines of one file: UTF-8, without NUL, each ended by `\\n`."""

    path: Path
    first_line: int  # number of its first line in the file, counted from 1
    text: bytes  # the last line of a file may lack its line end
    lines: int

    def texts(self) -> pl.DataFrame:
        """`line`, the number of each line, and its `text`."""
        text = pl.Series("text", self.text.decode().split("\n"), dtype=pl.String)
        return pl.DataFrame([pl.int_range(len(text), eager=True).alias("line"), text]).with_columns(
            pl.col("line") + self.first_line
        )


def line_blocks(
    paths: Sequence[Path],
    title: str,
    *,
    encoding: str = "utf-8",
    allow_truncated: bool = False,
    member: str | None = None,
) -> Generator[LineBlock]:
    """Yield the files' lines in order; the next block is unpacked while the caller works on one.

    A byte order mark is dropped, and `\\r\\n` becomes `\\n`. `member` names the file to take from a
    zip that holds several. Close the generator before anything is printed: the progress bar ends
    with it.

    Raises:
        InputError: the bytes are no text of this encoding, or a line holds a NUL or a carriage
            return (the message names file and line); a packed file is cut off or damaged (with the
            line up to which it was whole; `allow_truncated` goes on with those lines instead).
    """
    check_encoding(encoding)
    size = sum(path.stat().st_size for path in paths)
    with (
        tqdm(total=size, unit="B", unit_scale=True, desc=title, mininterval=0.5) as bar,
        ThreadPoolExecutor(max_workers=1) as ahead,
    ):
        blocks = (
            block
            for path in paths
            for block in _file_blocks(path, bar, encoding, allow_truncated, member)
        )
        pending = ahead.submit(next, blocks, None)
        while (block := pending.result()) is not None:
            pending = ahead.submit(next, blocks, None)
            yield block


def check_encoding(name: str) -> None:
    """Refuse what names no text encoding."""
    try:
        codecs.getincrementaldecoder(name)
        b"text".decode(name)
        return
    except UnicodeDecodeError:  # it is one, of more bytes a letter
        return
    except (LookupError, ValueError):
        pass
    raise InputError(
        f"--encoding {name}: Python knows no such text encoding. Valid are, among others, utf-8, "
        f"latin-1, cp1252, utf-16, gb18030, shift_jis."
    )


def _file_blocks(
    path: Path, bar: tqdm, encoding: str, allow_truncated: bool, member: str | None
) -> Iterator[LineBlock]:
    line = 1
    pieces: list[bytes] = []
    waiting = 0
    pieces_of_file = unpacked(path, member, bar.update)
    if codecs.lookup(encoding).name != "utf-8":
        pieces_of_file = _recoded(pieces_of_file, path, encoding)
    try:
        for text in pieces_of_file:
            pieces.append(text)
            waiting += len(text)
            if waiting < BLOCK_BYTES:
                continue
            whole, rest = _cut_after_line(b"".join(pieces))
            pieces, waiting = [rest], len(rest)
            if whole:
                block = _checked(path, line, whole)
                yield block
                line += block.lines
            elif waiting > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {line} is longer than {LONGEST_LINE >> 20} MiB: this is no file "
                    f"of lines. Are its lines ended by \\r alone? Then convert them by: tr '\\r' "
                    f"'\\n'."
                )
        last = b"".join(pieces)  # the last line needs no line end
    except CutOffError as error:
        last, _ = _cut_after_line(b"".join(pieces))
        whole_lines = line - 1 + last.count(b"\n")
        if not allow_truncated:
            raise InputError(
                f"{path} {error}: it is whole up to line {whole_lines}. Fetch it again, or go on "
                f"with those lines by --allow-truncated."
            ) from error
        bar.write(f"{path} {error}: going on with its {whole_lines} whole lines")
    if last:
        yield _checked(path, line, last)


def _recoded(pieces: Iterator[bytes], path: Path, encoding: str) -> Iterator[bytes]:
    """The pieces of a file in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    line = 1
    for piece in chain(pieces, [b""]):
        try:
            recoded = decoder.decode(piece, final=not piece).encode()
        except UnicodeError as error:
            raise _not_text(path, line, encoding, error) from error
        yield recoded
        line += recoded.count(b"\n")


def _not_text(path: Path, line: int, encoding: str, error: UnicodeError) -> InputError:
    """The error for bytes of which `line` is the first line."""
    holds = f" ({error})"
    if isinstance(error, UnicodeDecodeError):
        with suppress(LookupError, UnicodeError):
            before = error.object[: error.start]
            line += before.decode(error.encoding, "ignore").count("\n")
        line_start = error.object.rfind(b"\n", 0, error.start) + 1
        start = max(line_start, error.start - 20)
        around = bytes(error.object[start : error.end + 10]).split(b"\n")[0]
        holds = f": it holds {around!r}"
    return InputError(
        f"{path}, line {line} is not {encoding}{holds}. Name the file's encoding by --encoding, "
        "such as latin-1 or cp1252."
    )


# what no line holds, and what to do about it
_NO_TEXT = {
    b"\0": "a NUL byte: this is no text, or it is UTF-16 (--encoding utf-16)",
    b"\r": "a carriage return that ends no line. If \\r alone ends the file's lines, convert them "
    "by: tr '\\r' '\\n'; else take it out of the line",
}


def _checked(path: Path, line: int, text: bytes) -> LineBlock:
    """A block whose text is UTF-8 without NUL, a carriage return, or a byte order mark."""
    if line == 1:
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{path} is UTF-16, as its first bytes say. Add --encoding utf-16.")
        text = text.removeprefix(codecs.BOM_UTF8)
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError as error:
        raise _not_text(path, line, "UTF-8", error) from error
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
    for mark, says in _NO_TEXT.items():
        if mark in text:
            at = line + text.count(b"\n", 0, text.index(mark))
            raise InputError(f"{path}, line {at} holds {says}.")
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    return LineBlock(path, line, text, lines)


def _cut_after_line(text: bytes) -> tuple[bytes, bytes]:
    end = text.rfind(b"\n") + 1
    return text[:end], text[end:]
