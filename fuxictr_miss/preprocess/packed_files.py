"""The bytes of a file, plain or packed (gzip, bzip2, xz, zstd, zip): its first bytes say which."""

from __future__ import annotations

import bz2
import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from fuxictr_miss.errors import InputError

_READ_BYTES = 1 << 20
_PIECE_BYTES = 32 << 20
_GZIP, _BZIP2, _XZ, _ZSTD, _ZIP = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
)
_PACKED = (_GZIP, _BZIP2, _XZ, _ZSTD, _ZIP)
_EMPTY_ZIP, _SPLIT_ZIP = b"PK\x05\x06", b"PK\x07\x08"
# what a file of lines never begins with -> what it is
_UNREADABLE = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"\x1f\x9d": "packed by compress",
    b"PAR1": "a Parquet file",
    b"SQLite format 3\0": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an Office file",
    b"%PDF-": "a PDF",
}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class CutOffError(Exception):
    """A packed file ends, or stops making sense, before its end mark."""


def unpacked(path: Path, member: str | None, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yield what the file holds, piece by piece; `advance` is told of the bytes read for it.

    Args:
        member: the file to take from a zip that holds several.

    Raises:
        InputError: the file cannot be read, or not be unpacked here.
        CutOffError: it ends early or is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            pieces = filter(None, _pieces(file, start, path, member, advance))
            first = next(pieces, b"")
            _refuse_unreadable(path, first, packed=start.startswith(_PACKED))
            yield first
            yield from pieces
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error


def _pieces(
    file: IO[bytes], start: bytes, path: Path, member: str | None, advance: Callable[[int], object]
) -> Iterator[bytes]:
    if start.startswith(_GZIP):
        return _gunzip(file, advance)
    if start.startswith(_BZIP2) and start[3:4].isdigit():
        return _through(bz2.BZ2File(file).read1, file, advance)
    if start.startswith(_XZ):
        return _through(lzma.LZMAFile(file).read1, file, advance)
    if start.startswith(_ZSTD):
        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        return _through(stream.read, file, advance)
    if start.startswith((_ZIP, _EMPTY_ZIP, _SPLIT_ZIP)):
        return _unzip(file, path, member, advance)
    return _through(file.read, file, advance)


def _refuse_unreadable(path: Path, first: bytes, packed: bool) -> None:
    for magic, kind in _UNREADABLE.items():
        if first.startswith(magic):
            raise InputError(f"{path} is {kind}, no file of lines. Unpack or convert it first.")
    if first[257:262] == b"ustar":
        raise InputError(f"{path} holds a tar archive. Unpack it first, by tar -xf {path}.")
    if packed and first.startswith(_PACKED):
        raise InputError(f"{path} holds a packed file, it is packed twice. Unpack it once.")


def _through(
    read: Callable[[int], bytes], file: IO[bytes], advance: Callable[[int], object]
) -> Iterator[bytes]:
    """Pieces of a stream that reads from `file`."""
    before = 0
    while True:
        try:
            piece = read(_READ_BYTES)
        except EOFError as error:
            raise CutOffError("is cut off") from error
        except lzma.LZMAError as error:
            raise CutOffError("is damaged") from error
        except OSError as error:
            if error.errno is not None:  # the disk's, not the stream's
                raise
            cut_off = "truncated" in str(error).lower()
            raise CutOffError("is cut off" if cut_off else "is damaged") from error
        if not piece:
            return
        advance(file.tell() - before)
        before = file.tell()
        yield piece


def _gunzip(file: IO[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    decoder, inside = zlib.decompressobj(wbits=31), False
    while packed := file.read(_READ_BYTES):
        advance(len(packed))
        while packed:
            try:
                text = decoder.decompress(packed, _PIECE_BYTES)
            except zlib.error as error:
                raise CutOffError("is damaged") from error
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
            raise CutOffError("is cut off")


def _unzip(
    file: IO[bytes], path: Path, member: str | None, advance: Callable[[int], object]
) -> Iterator[bytes]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(f"{path} is a damaged or cut-off zip archive. Fetch it again.") from error
    inside = [entry for entry in archive.infolist() if not _is_clutter(entry)]
    chosen = [entry for entry in inside if Path(entry.filename).name == member]
    if not chosen:
        chosen = inside
    if len(chosen) != 1:
        wanted = "one file" if member is None else repr(member)
        names = ", ".join(entry.filename for entry in inside) or "nothing"
        raise InputError(f"{path} should hold {wanted}, but it holds {names}. Unpack it first.")
    (entry,) = chosen
    if entry.flag_bits & 1:
        raise InputError(f"{path}: {entry.filename} needs a password. Unpack it first.")
    if entry.compress_type not in _ZIP_METHODS:
        name = "Deflate64" if entry.compress_type == 9 else f"method {entry.compress_type}"
        raise InputError(
            f"{path}: {entry.filename} is packed by {name}, which Python cannot unpack. Unpack it "
            f"first, such as by: 7z x {path}"
        )
    ratio = entry.compress_size / max(entry.file_size, 1)
    try:
        with archive.open(entry) as text:
            while piece := text.read(_READ_BYTES):
                advance(int(len(piece) * ratio))
                yield piece
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        raise CutOffError("is damaged") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise CutOffError("is damaged") from error


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """A folder, or what macOS and Windows put beside the files."""
    *folders, name = entry.filename.rstrip("/").split("/")
    return entry.is_dir() or "__MACOSX" in folders or name.startswith(".") or name == "Thumbs.db"
