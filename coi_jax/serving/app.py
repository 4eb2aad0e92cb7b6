"""The routes of the server."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from coi_jax.serving import completions
from coi_jax.serving.errors import ApiError, reply_to
from coi_jax.serving.examples import examples
from coi_jax.serving.guard import Guard
from coi_jax.serving.page_files import PAGE, PAGE_FILES
from coi_jax.serving.service import Served, Service

# Nothing but the page's own script and style runs, and it talks to this server alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)

Handler = Callable[[Service, Request], Awaitable[Response]]


def make_app(service: Service, hosts: Collection[str], key: str | None) -> Guard:
    """Return the application of a server.

    Args:
      service: the models.
      hosts: that requests may be addressed to.
      key: that they must send; None for no key.
    """

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        return Route(path, functools.partial(handler, service), methods=[method])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.close)

    app = Starlette(
        routes=[
            *(Route(path, functools.partial(_page_file, name)) for path, name in PAGE_FILES.items()),
            route("/health", _health),
            route("/ready", _ready),
            route("/metrics", _metrics),
            route("/v1/models", _models),
            route("/v1/models/{name:path}", _model),
            route("/v1/coi/examples", examples),
            route("/v1/chat/completions", completions.chat_completions, "POST"),
            route("/v1/completions", completions.completions, "POST"),
        ],
        exception_handlers={ApiError: reply_to, HTTPException: reply_to, Exception: reply_to},
        lifespan=lifespan,
    )
    return Guard(app, hosts, key, service.metrics)


async def _page_file(name: str, _: Request) -> Response:
    return FileResponse(PAGE / name, headers={"Content-Security-Policy": POLICY})


async def _health(_: Service, __: Request) -> Response:
    """Say that the server runs."""
    return JSONResponse({"status": "ok"})


async def _ready(service: Service, _: Request) -> Response:
    """Say whether every model can answer."""
    is_ready = service.is_ready
    return JSONResponse({"status": "ready" if is_ready else "loading"}, 200 if is_ready else 503)


async def _metrics(service: Service, _: Request) -> Response:
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _models(service: Service, _: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_describe(one) for one in service.served.values()]})


async def _model(service: Service, request: Request) -> Response:
    return JSONResponse(_describe(service.find(request.path_params["name"])))


def _describe(served: Served) -> dict[str, Any]:
    """Return a model as OpenAI's API lists it; `coi` says how it was tuned and how much it reads and writes."""
    config = served.model.config
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "coi-jax",
        "coi": {
            "arm": config.arm,
            "checkpoint": served.model.checkpoint,
            "template": config.data.template,
            "max_prompt_tokens": served.scheduler.longest,
            "max_new_tokens": served.scheduler.limit,
            "ready": served.scheduler.is_ready,
        },
    }
