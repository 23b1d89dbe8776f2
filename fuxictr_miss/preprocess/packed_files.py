"""The bytes of a file, plain or packed (gzip, bzip2, xz, zstd, zip): its first bytes say which."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from fuxictr_miss.errors import InputError, explained

_READ_BYTES = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with files, empty, in parts
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", _ZSTD, _ZIPS[0])
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
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
    what = f"{path} cannot be read"
    with explained(OSError, what, "mend that, or name another file"), path.open("rb") as file:
        start = file.read(16)
        file.seek(0)
        pieces = _pieces(_reader(file, start, path, member), file, advance)
        first = next(pieces, b"")
        _refuse_unreadable(path, first, packed=start.startswith(_PACKED))
        yield first
        yield from pieces


def _reader(
    file: IO[bytes], start: bytes, path: Path, member: str | None
) -> Callable[[int], bytes]:
    """What reads the next bytes, unpacked; `start` is how the file begins."""
    gzip_mark, bzip2_mark, xz_mark, *_ = _PACKED
    if start.startswith(gzip_mark):
        return gzip.GzipFile(fileobj=file).read1
    if start.startswith(bzip2_mark) and start[3:4].isdigit():
        return bz2.BZ2File(file).read1
    if start.startswith(xz_mark):
        return lzma.LZMAFile(file).read1
    if start.startswith(_ZSTD):
        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd").read
    if start.startswith(_ZIPS):
        return _member(file, path, member).read
    return file.read


def _pieces(
    read: Callable[[int], bytes], file: IO[bytes], advance: Callable[[int], object]
) -> Iterator[bytes]:
    done = 0
    while True:
        try:
            piece = read(_READ_BYTES)
        except EOFError as error:
            raise CutOffError("is cut off") from error
        except _DAMAGED as error:
            raise CutOffError("is damaged") from error
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):  # the disk's, not the stream's
                raise
            cut_off = "truncated" in str(error).lower()
            raise CutOffError("is cut off" if cut_off else "is damaged") from error
        if not piece:
            return
        advance(file.tell() - done)
        done = file.tell()
        yield piece


# what the unpackers raise for bytes that make no sense
_DAMAGED = (
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


def _refuse_unreadable(path: Path, first: bytes, packed: bool) -> None:
    for magic, kind in _UNREADABLE.items():
        if first.startswith(magic):
            raise InputError(f"{path} is {kind}, no file of lines. Unpack or convert it first.")
    if first[257:262] == b"ustar":
        raise InputError(f"{path} holds a tar archive. Unpack it first, by tar -xf {path}.")
    if packed and first.startswith(_PACKED):
        raise InputError(f"{path} holds a packed file, it is packed twice. Unpack it once.")


def _member(file: IO[bytes], path: Path, member: str | None) -> IO[bytes]:
    """The only file of a zip, or the one that is wanted."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise InputError(f"{path} is a damaged or cut-off zip archive. Fetch it again.") from error
    inside = [entry for entry in archive.infolist() if not _is_clutter(entry)]
    chosen = [entry for entry in inside if Path(entry.filename).name == member] or inside
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
    try:
        return archive.open(entry)
    except _DAMAGED as error:
        raise CutOffError("is damaged") from error


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """A folder, or what macOS and Windows put beside the files."""
    *folders, name = entry.filename.rstrip("/").split("/")
    return entry.is_dir() or "__MACOSX" in folders or name.startswith(".") or name == "Thumbs.db"
