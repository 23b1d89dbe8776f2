"""Transfers that break, resume and end, against a server on localhost."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_amazon import METADATA, REVIEWS

from fuxictr_miss.errors import InputError
from fuxictr_miss.preprocess import amazon
from fuxictr_miss.preprocess import download as transfer
from fuxictr_miss.preprocess.download import download, part_of

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    break_after: list[int]  # bytes that each next answer sends before it breaks
    ranges: bool  # whether it can send a part
    asked: list[str]  # the Range of each request

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        if not self.server.ranges:
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + self.server.break_after.pop(0) if self.server.break_after else None
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "_PAUSE", 0.001)
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.break_after, server.ranges, server.asked = {"/f": CONTENT}, [], True, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_arrives_whole_in_a_new_folder(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new/folder/f"
    download(f"{server.address}/f", path)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["f"]


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = [300_000, 200_000]
    download(f"{server.address}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_what_an_earlier_run_left_is_used(server: Server, tmp_path: Path) -> None:
    part_of(f"{server.address}/f", tmp_path / "f").write_bytes(CONTENT[:1000])
    download(f"{server.address}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("extra", [b"", b"longer"])
def test_a_part_as_long_as_the_file_is_whole_and_a_longer_one_is_dropped(
    server: Server, tmp_path: Path, extra: bytes
) -> None:
    part_of(f"{server.address}/f", tmp_path / "f").write_bytes(CONTENT + extra)
    download(f"{server.address}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [300_000]
    download(f"{server.address}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_transfer_that_never_moves_is_given_up(server: Server, tmp_path: Path) -> None:
    server.break_after = [0] * 50
    with pytest.raises(InputError, match=r"0 of 1,048,576 bytes arrived.*Run the command again"):
        download(f"{server.address}/f", tmp_path / "f")
    assert len(server.asked) == transfer.ATTEMPTS
    assert not (tmp_path / "f").exists()


def test_a_file_that_is_not_there_is_named_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/g: the server answers 404"):
        download(f"{server.address}/g", tmp_path / "g")
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "_PAUSE", 0.001)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/f"):
        download("http://127.0.0.1:9/f", tmp_path / "f")


def test_the_part_of_another_program_or_address_is_left_alone(
    server: Server, tmp_path: Path
) -> None:
    server.files["/other/f"] = b"another file of that name"
    strangers = [tmp_path / "f.part", part_of(f"{server.address}/other/f", tmp_path / "f")]
    for path in strangers:
        path.write_bytes(b"mine")
    download(f"{server.address}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [path.read_bytes() for path in strangers] == [b"mine", b"mine"]


def test_what_is_there_is_not_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "g").write_bytes(b"mine")
    for name in "fg":
        with pytest.raises(InputError, match="is there already"):
            download(f"{server.address}/f", tmp_path / name)
    assert (tmp_path / "g").read_bytes() == b"mine"
    assert server.asked == []


def test_the_command_fetches_what_is_missing_and_builds(
    server: Server, tmp_path: Path, monkeypatch, run
) -> None:
    monkeypatch.chdir(tmp_path)
    reviews = "".join(json.dumps(line) + "\n" for line in REVIEWS)
    metadata = "".join(f"{line!r}\n" for line in METADATA)
    server.files = {
        "/reviews_Beauty_5.json.gz": gzip.compress(reviews.encode()),
        "/meta_Beauty.json.gz": gzip.compress(metadata.encode()),
    }
    for _ in range(2):
        ended = run(amazon, "--dataset", "amazonbeauty", "--download", server.address)
        assert ended.code == 0, ended.err
    assert len(server.asked) == 2  # the second run fetched nothing
    assert Path("data/splits/amazonbeauty/train.parquet").is_file()
