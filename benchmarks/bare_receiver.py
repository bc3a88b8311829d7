"""The least that can be called a webhook receiver: writes each body to S3 in a thread and answers 200.

What the real one is measured against: the same framework, server, S3 client, time-outs and number of threads.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from livekit_backup.hooks.s3_client import EnvironmentConnection
from livekit_backup.receiver.inbox_writer import THREADS, TUNING


def main() -> None:
    client = EnvironmentConnection(tuning=TUNING).client
    bucket = os.environ["LIVEKIT_BACKUP_INBOX"].removeprefix("s3://").partition("/")[0]
    numbers = itertools.count()

    async def webhook(request: Request) -> Response:
        key = f"bare-{os.getpid()}/{next(numbers)}.json"
        put = partial(client.put_object, Bucket=bucket, Key=key, Body=await request.body())
        await run_in_threadpool(put, ContentType="application/json")
        return Response()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    routes = [Route("/webhook", webhook, methods=["POST"]), Route("/health", lambda _: Response())]
    app = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning", ws="none", server_header=False)


if __name__ == "__main__":
    main()
