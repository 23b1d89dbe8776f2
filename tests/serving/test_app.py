"""The example server loses no request, answers as the Scorer does, and names what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving.conftest import ROWS

from fuxictr_miss.errors import InputError
from fuxictr_miss.serving import Scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "serving"
BAD_ROW = {**ROWS[0], "item_history": "^i1"}


@pytest.fixture(scope="module")
def server(artefact: Path) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(EXAMPLE), "--port", "0"]
    environment = {**os.environ, "MODEL": str(artefact)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            said = ""
            for line in started.stderr:
                said += line
                if found := re.search(r"running on (http://\S+)", line):
                    break
            else:
                pytest.fail(said)
            yield found.group(1)
        finally:
            started.terminate()


def ask(server: str, requests: list[Any]) -> list[httpx.Response]:
    """All at once."""

    async def together() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(requests))
        async with httpx.AsyncClient(base_url=server, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(client.post("/score", json=each) for each in requests))

    return asyncio.run(together())


def test_of_200_requests_at_once_none_is_lost_and_each_has_its_own_scores(server, artefact):
    requests = [
        {"rows": [{**row, "price": float(n)} for row in ROWS[: n % 3 + 1]]} for n in range(200)
    ]
    requests[50] = {"rows": [BAD_ROW]}  # among others: they are scored all the same
    answers = ask(server, requests)
    scorer = Scorer(artefact)
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        if number == 50:
            assert answer.status_code == 422
            continue
        assert answer.status_code == 200
        expected = scorer.score(request["rows"]).tolist()
        assert answer.json()["scores"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        ('{"rows": [', 422, "JSON"),
        ('{"rows": []}', 422, '"rows"'),
        ('{"lines": []}', 422, '"rows"'),
        ('{"rows": NaN}', 422, '"rows"'),
        ('{"rows": [3]}', 422, '"rows",0'),
        (json.dumps({"rows": [ROWS[0], BAD_ROW]}), 422, "row 2, column 'item_history'"),
        (json.dumps({"rows": [{"item_id": "i1"}]}), 422, "column 'item_history' is missing"),
        (json.dumps({"rows": [{**ROWS[0], "price": "ten"}]}), 422, "column 'price'"),
        (json.dumps({"rows": [{**ROWS[0], "item_id": "\ud800"}]}), 422, "column 'item_id'"),
        (json.dumps({"rows": [{}] * 2001}), 413, "2000 at most"),
        (json.dumps({"rows": [{"a": "x" * (4 << 20)}]}), 413, "4194304 bytes at most"),
        (b"\xff", 400, "body"),
    ],
)
def test_a_bad_body_is_refused_with_its_field(server, body, status, names):
    answer = httpx.post(
        f"{server}/score", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert names in answer.text
    assert ask(server, [{"rows": ROWS}])[0].status_code == 200  # it goes on


def test_a_body_without_a_length_is_limited_too(server):
    pieces = iter([b" " * (1 << 20)] * 5)
    assert httpx.post(f"{server}/score", content=pieces).status_code == 413


def test_health_says_which_columns_a_row_needs(server):
    answer = httpx.get(f"{server}/health").json()
    assert answer["status"] == "ok"
    assert answer["columns"] == ["item_id", "item_history", "cate_history", "price"]
    assert set(answer["unknown"]) == {"item_id", "item_history", "cate_history"}


def test_the_triton_repository_names_the_inputs_with_their_shapes(artefact, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    import triton_repository

    folder = triton_repository.write(artefact, tmp_path / "repository")
    assert folder == tmp_path / "repository" / "Sum"
    model = (folder / "1" / "model.onnx").read_bytes()
    assert model == (artefact / "model.onnx").read_bytes()
    config = (folder / "config.pbtxt").read_text()
    assert 'name: "item_id" data_type: TYPE_INT64 dims: [ 1 ] reshape: { shape: [ ] }' in config
    assert 'name: "item_history" data_type: TYPE_INT64 dims: [ 3 ]' in config
    assert 'name: "price" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] }' in config
    assert 'name: "y_pred" data_type: TYPE_FP32 dims: [ 1 ]' in config
    with pytest.raises(InputError, match="exists"):
        triton_repository.write(artefact, tmp_path / "repository")
