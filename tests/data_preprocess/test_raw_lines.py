"""Blocks of whole lines from plain, gzip and zip files, whole or broken."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raw_lines
from fuxictr_miss.errors import InputError
from raw_lines import line_blocks

TEXT = b"".join(b"line %d\n" % n for n in range(1, 1001))


def joined(path: Path, **options: bool) -> bytes:
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
    archive = zipped(tmp_path / "d", only=TEXT)
    for path in (plain, packed, members, archive):
        assert joined(path) == TEXT


def test_blocks_hold_whole_lines_and_know_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(raw_lines, "_READ_BYTES", 64)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT))
    blocks = list(line_blocks([path], "test"))
    assert len(blocks) > 20
    for block in blocks:
        assert block.text.startswith(b"line %d\n" % block.first_line)
        assert block.text.endswith(b"\n")
    assert b"".join(block.text for block in blocks) == TEXT


def test_the_last_line_needs_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1\n2\n3")
    assert joined(path) == b"1\n2\n3"


def test_a_cut_off_gzip_names_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT)[:-200])
    with pytest.raises(
        InputError, match=r"a\.gz is cut off: it is whole up to line (\d+)"
    ) as error:
        joined(path)
    line = int(str(error.value).split("line ")[1].split(".")[0])
    kept = joined(path, allow_truncated=True)
    assert kept == b"".join(b"line %d\n" % n for n in range(1, line + 1))
    assert 0 < line < 1000


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
    with pytest.raises(InputError, match=r"one file.*folder/one, folder/two"):
        joined(path)


@given(pieces=st.lists(st.sampled_from(['"', "\n", "a", '""', "\r\n"]), max_size=40))
def test_a_quoted_line_end_never_ends_a_block(pieces: list[str]) -> None:
    text = "".join(pieces).encode()
    whole, rest = raw_lines._cut_after_line(text, quoted=True)
    ends = [
        n + 1 for n, byte in enumerate(text) if byte == ord("\n") and text[:n].count(b'"') % 2 == 0
    ]
    assert whole + rest == text
    assert len(whole) == max(ends, default=0)
