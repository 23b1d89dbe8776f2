"""Blocks of whole lines from plain, gzip and zip files, whole or broken."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import packed_files, raw_lines
from fuxictr_miss.preprocess.raw_lines import line_blocks

TEXT = b"".join(b"line %d\n" % n for n in range(1, 1001))


def zstd(text: bytes) -> bytes:
    return bytes(pa.compress(text, "zstd", asbytes=True))


def joined(path: Path, **options: object) -> bytes:
    return b"".join(block.text for block in line_blocks([path], "test", **options))


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"folder/{name}", text)
    return path


def test_a_file_is_read_alike_in_any_packing(tmp_path: Path) -> None:
    plain, packed, members = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    plain.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT))
    members.write_bytes(gzip.compress(TEXT[:3000]) + gzip.compress(TEXT[3000:]) + b"\0" * 9)
    packings = [plain, packed, members, zipped(tmp_path / "d", only=TEXT)]
    for name, content in (
        ("bz2", bz2.compress(TEXT[:3000]) + bz2.compress(TEXT[3000:])),
        ("xz", lzma.compress(TEXT[:3000]) + lzma.compress(TEXT[3000:])),
        ("zst", zstd(TEXT[:3000]) + zstd(TEXT[3000:])),
    ):
        packings.append(tmp_path / name)
        packings[-1].write_bytes(content)
    for path in packings:
        assert joined(path) == TEXT


def test_blocks_hold_whole_lines_and_know_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(packed_files, "_READ_BYTES", 64)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT))
    blocks = list(line_blocks([path], "test"))
    assert len(blocks) > 20
    for block in blocks:
        assert block.text.count(b"\n") == block.lines
        assert block.text.startswith(b"line %d\n" % block.first_line)
        assert block.text.endswith(b"\n")
    assert b"".join(block.text for block in blocks) == TEXT


def test_the_last_line_needs_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1\n2\n3")
    assert joined(path) == b"1\n2\n3"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_cut_off_file_names_its_last_whole_line(tmp_path: Path, pack) -> None:
    path = tmp_path / "a.gz"
    text = TEXT * 300  # several blocks of bzip2
    packed = pack(text)
    path.write_bytes(packed[: len(packed) * 9 // 10])
    with pytest.raises(
        InputError, match=r"a\.gz is cut off: it is whole up to line (\d+)"
    ) as error:
        joined(path)
    line = int(str(error.value).split("line ")[1].split(".")[0])
    kept = joined(path, allow_truncated=True)
    assert kept == b"".join(text.splitlines(keepends=True)[:line])
    assert line < 300_000


def test_a_damaged_gzip_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    packed = bytearray(gzip.compress(TEXT))
    packed[len(packed) // 2] ^= 255
    path.write_bytes(packed)
    with pytest.raises(InputError, match="is damaged: it is whole up to line"):
        joined(path)


def test_a_cut_off_zip_is_said_to_be_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", only=TEXT)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged or cut-off zip"):
        joined(path)


def test_of_several_files_in_a_zip_the_named_one_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", one=b"1\n", two=b"2\n")
    (block,) = line_blocks([path], "test", member="two")
    assert block.text == b"2\n"
    assert block.lines == 1
    with pytest.raises(InputError, match=r"one file.*folder/one, folder/two"):
        joined(path)


@pytest.mark.parametrize(
    "name", ["__MACOSX/folder/._log.csv", "folder/.DS_Store", "Thumbs.db", "d/"]
)
def test_what_a_desktop_adds_to_a_zip_is_no_file_of_it(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", **{"log.csv": TEXT})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"\0\5\26\7")
    assert joined(path) == TEXT


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [(8, 9, "Deflate64"), (8, 98, "method 98"), (6, 1, "needs a password")],
)
def test_a_zip_that_python_cannot_unpack_is_named(
    tmp_path: Path, at: int, value: int, expected: str
) -> None:
    path = zipped(tmp_path / "a.zip", only=TEXT)
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[at] = content[central + at + 2] = value  # the method, or the flags
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"folder/only .*{expected}"):
        joined(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"7z\xbc\xaf\x27\x1c", "7z archive"),
        (b"Rar!\x1a\x07\0", "RAR"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x04\x22\x4d\x18abc", "lz4"),
        # no time of packing in them: they are in the names of the tests, alike in all processes
        (gzip.compress(gzip.compress(TEXT), mtime=0), "packed twice"),
        (gzip.compress(b"log.csv".ljust(257, b"\0") + b"ustar", mtime=0), "tar -xf"),
        (TEXT.decode().encode("utf-16"), "UTF-16.*--encoding utf-16"),
        (TEXT.decode().encode("utf-16-le"), "line 1 holds a NUL byte"),
        (b"a\nb\0\n", "line 2 holds a NUL byte"),
        (b"a\nJos\xe9,b\n", r"line 2 is not UTF-8: it holds b'Jos\\xe9,b'.*--encoding"),
        (b"a\nb\rc\r", "line 2 holds a carriage return"),
        (b"a\rb\rc\r", "line 1 holds a carriage return"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        joined(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030", "UTF8"]
)
def test_any_encoding_becomes_utf_8_without_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    monkeypatch.setattr(packed_files, "_READ_BYTES", 7)  # letters are cut in pieces
    monkeypatch.setattr(raw_lines, "BLOCK_BYTES", 20)
    path = tmp_path / "a"
    text = "".join(f"José {n} \u672c \U0001f600{end}" for n in range(20))
    path.write_bytes(text.encode(encoding))
    expected = text.replace(end, "\n").encode()
    blocks = line_blocks([path], "test", encoding=encoding)
    assert b"".join(block.text for block in blocks) == expected


def test_bytes_that_an_encoding_lacks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a\nb\n" * 50 + b"c\x81d\n")
    with pytest.raises(InputError, match=r"line 101 is not cp1252: it holds b'c\\x81d'"):
        joined(path, encoding="cp1252")
    assert joined(path, encoding="latin-1").endswith("c\x81d\n".encode())


@pytest.mark.parametrize("name", ["utf-9", "hex", "rot13", "zlib", "undefined", "a\0b", ""])
def test_an_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--encoding"):
        raw_lines.check_encoding(name)


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_files, "_READ_BYTES", 64)
    monkeypatch.setattr(raw_lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(raw_lines, "LONGEST_LINE", 1000)
    path = tmp_path / "a"
    path.write_bytes(b"a\n" + b"x" * 5000)
    with pytest.raises(InputError, match="line 2 is longer than"):
        joined(path)
