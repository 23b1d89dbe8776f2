"""Fetches one large file over HTTP, and goes on where a broken transfer stopped."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

from fuxictr_miss.errors import InputError

ATTEMPTS = 5
_PAUSE = 2.0  # seconds before the second attempt; doubles with each
_TIMEOUT = 60.0  # seconds without a byte
_CHUNK_BYTES = 1 << 18


def download(url: str, path: Path) -> None:
    """Fetch `url` to `path`; it appears there whole or not at all.

    What has arrived stays beside it as `<name>.<digest of the address>.part`, a name that no other
    program gives, and the next attempt or the next run goes on from there, if the server can. The
    size is checked against the one that the server names.

    Raises:
        InputError: the server has no such file, or `ATTEMPTS` in a row brought nothing new; there
            is something at `path`.
    """
    if os.path.lexists(path):
        raise InputError(f"{path} is there already. Move it away to fetch it again.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(url, path)
    failed, pause = 0, _PAUSE
    while True:
        before = _size(part)
        try:
            _go_on(url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise _give_up(
                    url, path, f"the server answers {error.code} {error.reason}"
                ) from error
            reason: Exception = error
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = error
        failed, pause = (0, _PAUSE) if _size(part) > before else (failed + 1, pause * 2)
        if failed == ATTEMPTS:
            raise _give_up(url, path, str(getattr(reason, "reason", reason))) from reason
        time.sleep(pause / 2)
    if os.path.lexists(path):
        raise InputError(f"{path} has appeared meanwhile. What was fetched is {part}.")
    os.replace(part, path)


def part_of(url: str, path: Path) -> Path:
    """Where the part of the file that has arrived lies."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return path.with_name(f"{path.name}.{digest}.part")


def _go_on(url: str, part: Path) -> None:
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing comes after what is there: it is whole, or of another file
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise ConnectionError("what was there is longer than the file") from error
    with answer:
        if answer.status != 206:  # the server sends all of it, from the start
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=Path(part.stem).stem,
                mininterval=0.5,
            ) as bar,
        ):
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise ConnectionError(f"{_size(part):,} of {total:,} bytes arrived")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _give_up(url: str, path: Path, why: str) -> InputError:
    return InputError(
        f"Cannot fetch {url}: {why}. Run the command again to go on, or fetch it by other means "
        f"and put it at {path}."
    )
