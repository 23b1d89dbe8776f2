"""The lines of raw files, plain or packed, in blocks of whole lines and under one progress bar."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from fuxictr_miss.errors import InputError

BLOCK_BYTES = 32 << 20  # of unpacked text; what is in memory at once is a few of these
_READ_BYTES = 1 << 20


class LineBlock(NamedTuple):
    """Consecutive whole lines of one file."""

    path: Path
    first_line: int  # number of its first line in the file, counted from 1
    text: bytes


def line_blocks(
    paths: Sequence[Path],
    title: str,
    *,
    allow_truncated: bool = False,
    quoted: bool = False,
    member: str | None = None,
) -> Iterator[LineBlock]:
    """Yield the files' lines in order; the next block is unpacked while the caller works on one.

    A file is plain text, gzip (also of several members) or zip; its first bytes decide, not its
    name. With `quoted`, a line end inside double quotes (CSV) does not end a line. `member` names
    the file to take from a zip that holds several.

    Raises:
        InputError: a packed file is cut off or damaged (the message names the file and the line
            up to which it was whole; `allow_truncated` goes on with those lines instead).
    """
    size = sum(path.stat().st_size for path in paths)
    with (
        tqdm(total=size, unit="B", unit_scale=True, desc=title, mininterval=0.5) as bar,
        ThreadPoolExecutor(max_workers=1) as ahead,
    ):
        blocks = (
            block
            for path in paths
            for block in _file_blocks(path, bar, allow_truncated, quoted, member)
        )
        pending = ahead.submit(next, blocks, None)
        while (block := pending.result()) is not None:
            pending = ahead.submit(next, blocks, None)
            yield block


class _CutOffError(Exception):
    """A packed file ends, or stops making sense, before its end mark."""


def _file_blocks(
    path: Path, bar: tqdm, allow_truncated: bool, quoted: bool, member: str | None
) -> Iterator[LineBlock]:
    line, pieces, waiting = 1, [], 0
    try:
        for text in _unpacked(path, member, bar.update):
            pieces.append(text)
            waiting += len(text)
            if waiting < BLOCK_BYTES:
                continue
            # a quote that is never closed must not draw the whole file into memory
            whole, rest = _cut_after_line(b"".join(pieces), quoted and waiting < 4 * BLOCK_BYTES)
            pieces, waiting = [rest], len(rest)
            if whole:
                yield LineBlock(path, line, whole)
                line += whole.count(b"\n")
        last = b"".join(pieces)  # the last line needs no line end
    except _CutOffError as error:
        last, _ = _cut_after_line(b"".join(pieces), quoted)
        whole_lines = line - 1 + last.count(b"\n")
        if not allow_truncated:
            raise InputError(
                f"{path} {error}: it is whole up to line {whole_lines}. Fetch it again, or go on "
                f"with those lines by --allow-truncated."
            ) from error
        bar.write(f"{path} {error}: going on with its {whole_lines} whole lines")
    if last:
        yield LineBlock(path, line, last)


def _cut_after_line(text: bytes, quoted: bool) -> tuple[bytes, bytes]:
    """Split after the last line end, with `quoted` after the last one outside double quotes."""
    end = text.rfind(b"\n") + 1
    inside = quoted and text.count(b'"', 0, end) % 2 == 1
    while inside:
        opening = text.rfind(b'"', 0, end)
        closing_before = text.rfind(b'"', 0, opening)
        end = text.rfind(b"\n", 0, opening) + 1
        if end > closing_before:  # a line ends between the two, or there is nothing left
            break
        end = closing_before
    return text[:end], text[end:]


def _unpacked(path: Path, member: str | None, advance: Callable[[int], object]) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield from _gunzip(file, advance)
        elif magic == b"PK\x03\x04":
            yield from _unzip(file, path, member, advance)
        else:
            while text := file.read(_READ_BYTES):
                advance(len(text))
                yield text


def _gunzip(file: IO[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    decoder, inside = zlib.decompressobj(wbits=31), False
    while packed := file.read(_READ_BYTES):
        advance(len(packed))
        while packed:
            try:
                text = decoder.decompress(packed, BLOCK_BYTES)
            except zlib.error as error:
                raise _CutOffError("is damaged") from error
            inside = True
            if text:
                yield text
            packed = decoder.unconsumed_tail
            if decoder.eof:  # one more member may follow, or zeros that only fill up
                packed = decoder.unused_data.lstrip(b"\0")
                decoder, inside = zlib.decompressobj(wbits=31), False
    if inside:
        yield decoder.flush()
        if not decoder.eof:
            raise _CutOffError("is cut off")


def _unzip(
    file: IO[bytes], path: Path, member: str | None, advance: Callable[[int], object]
) -> Iterator[bytes]:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is a damaged or cut-off zip archive. Fetch it again.") from error
    inside = [entry for entry in archive.infolist() if not entry.is_dir()]
    chosen = [entry for entry in inside if Path(entry.filename).name == member]
    if not chosen:
        chosen = inside
    if len(chosen) != 1:
        wanted = "one file" if member is None else repr(member)
        names = ", ".join(entry.filename for entry in inside) or "nothing"
        raise InputError(f"{path} should hold {wanted}, but it holds {names}. Unpack it first.")
    ratio = chosen[0].compress_size / max(chosen[0].file_size, 1)
    try:
        with archive.open(chosen[0]) as unpacked:
            while text := unpacked.read(_READ_BYTES):
                advance(int(len(text) * ratio))
                yield text
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _CutOffError("is damaged") from error
