"""What every request must pass: the host that it names, the key, the size and the speed of its body."""

import asyncio
import contextlib
import hmac
import urllib.parse
from collections.abc import Collection
from dataclasses import dataclass

import h11
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coi_jax.serving.errors import ApiError
from coi_jax.serving.metrics import Metrics
from coi_jax.serving.page_files import PAGE_FILES

MOST_BYTES = 2**22  # of a body
BODY_SECONDS = 30.0  # for a whole body
OPEN_PATHS = ("/health", "/ready", *PAGE_FILES)  # that need no key

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Guard:
    """An ASGI application that lets requests through to another one.

    Attributes:
      app: the other application.
      hosts: that a request may be addressed to, without port; a page of another site cannot name them.
      key: that requests must send as `Authorization: Bearer …`; None for no key.
      metrics: that count the requests.
    """

    app: ASGIApp
    hosts: Collection[str]
    key: str | None
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
                self.metrics.count(_route(scope), message["status"])
            with contextlib.suppress(h11.LocalProtocolError):  # what came was no HTTP, and is answered so already
                await send(message)

        try:
            self._check(scope)
        except ApiError as error:
            await error.reply()(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = _host_of(headers.get("host", ""))
        if host not in self.hosts:
            hint = f"Host {host[:100]!r} is not this server; name it with --allowed_host"
            raise ApiError(421, hint, code="wrong_host")
        if scope["path"] not in OPEN_PATHS and not self._has_key(headers.get("authorization", "")):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")

    def _has_key(self, given: str) -> bool:
        """Return whether a header holds the key; how long that takes tells nothing of it."""
        return self.key is None or hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode())


def _host_of(header: str) -> str:
    """Return the name in a `Host` header, in lower case and without its port; "" where it is none."""
    try:
        return urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:  # brackets of an IPv6 address that do not close
        return ""


def _route(scope: Scope) -> str:
    """Return the path of a request as it is counted: those that there are not are one."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
      ApiError: it is no JSON by its header, too long, or comes too slowly.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page of another site cannot send without asking
        raise ApiError(415, f"Content-Type {kind[:100]!r} should be application/json")
    if request.headers.get("content-length", "0").isdecimal() and _length(request) > MOST_BYTES:
        raise _too_long()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collect(request)
    except ClientDisconnect:
        raise ApiError(400, "the client has gone before the end of the body") from None
    except TimeoutError:
        raise ApiError(408, f"the body took longer than {BODY_SECONDS:g} s") from None


async def _collect(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            raise _too_long()
    return bytes(data)


def _length(request: Request) -> int:
    digits = request.headers.get("content-length", "0")
    return int(digits) if len(digits) < 20 else MOST_BYTES + 1


def _too_long() -> ApiError:
    return ApiError(413, f"the body is longer than {MOST_BYTES >> 20} MiB", headers={"Connection": "close"})
