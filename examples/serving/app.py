"""An exported model behind HTTP, to start from.

    MODEL=exported uvicorn app:app --app-dir examples/serving

POST /score {"rows": [{"item_id": "i7", "item_history": "i3^i12"}]} answers {"scores": [0.73]}, and
GET /health which columns a row must have. One worker scores all that has come in while it scored
the batch before: a request waits for one batch, not for a timer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuxictr_miss.errors import InputError
from fuxictr_miss.serving import Scorer

MAX_BYTES = 4 << 20  # of a request
MAX_ROWS = 2000  # of a request, and about of a batch
MAX_WAITING = 1000  # requests


class Rows(BaseModel):
    rows: list[dict[str, Any]] = Field(min_length=1)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.scorer = Scorer(os.environ.get("MODEL", "exported"))
    app.state.waiting = asyncio.Queue(MAX_WAITING)
    worker = asyncio.create_task(work(app.state.scorer, app.state.waiting))
    yield
    worker.cancel()


app = FastAPI(title="fuxictr_miss", lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, Any]:
    scorer = app.state.scorer
    return {"status": "ok", "columns": scorer.columns, "unknown": scorer.unknown}


@app.post("/score")
async def score(request: Rows) -> dict[str, Any]:
    if len(request.rows) > MAX_ROWS:
        raise HTTPException(413, f"{len(request.rows)} rows: send {MAX_ROWS} at most.")
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        app.state.waiting.put_nowait((request.rows, answer))
        return {"scores": await answer}
    except asyncio.QueueFull:
        raise HTTPException(503, "Too many requests are waiting: try again.") from None
    except InputError as error:  # it names the row of the request and the column
        raise HTTPException(422, [{"loc": ["body", "rows"], "msg": str(error)}]) from None


async def work(scorer: Scorer, waiting: asyncio.Queue) -> None:
    while True:
        batch = [await waiting.get()]
        rows = len(batch[0][0])
        while rows < MAX_ROWS and not waiting.empty():
            batch.append(waiting.get_nowait())
            rows += len(batch[-1][0])
        answers = await asyncio.to_thread(score_all, scorer, [rows for rows, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # its client has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def score_all(scorer: Scorer, requests: list[list[dict[str, Any]]]) -> list[Any]:
    """Scores or an error of each request: a bad one must not fail those beside it."""
    try:
        scores = scorer.score([row for rows in requests for row in rows])
    except Exception as error:
        if len(requests) == 1:
            return [error]
        return [answer for rows in requests for answer in score_all(scorer, [rows])]
    answers, start = [], 0
    for rows in requests:
        part = slice(start, start + len(rows))
        start += len(rows)
        if isinstance(scores, dict):  # several tasks
            answers.append({name: each[part].tolist() for name, each in scores.items()})
        else:
            answers.append(scores[part].tolist())
    return answers


@app.exception_handler(RequestValidationError)
async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Where it is wrong and why, without repeating what was sent."""
    detail = [{"loc": list(each["loc"]), "msg": each["msg"]} for each in error.errors()]
    return JSONResponse({"detail": detail}, 422)


class LimitBody:
    """Answers 413 as soon as a body is longer than MAX_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BYTES:
                answer = JSONResponse({"detail": f"Send {MAX_BYTES} bytes at most."}, 413)
                return await answer(scope, receive, send)
        whole: list[Message] = [{"type": "http.request", "body": bytes(body)}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


app.add_middleware(LimitBody)
