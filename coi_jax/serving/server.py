"""The process that serves: a socket, uvicorn, and an end that loses nothing."""

import asyncio
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coi_jax.serving.guard import Guard
from coi_jax.serving.service import Service

HEADER_SECONDS = 10.0  # for the headers of a connection's first request
MOST_HEADER_BYTES = 2**16


class _ImpatientProtocol(H11Protocol):
    """Closes connections whose headers do not come: each would hold a socket for as long as it likes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hurry.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Ends at a signal after what is in flight; at once at the second one."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: also where a model cannot be loaded."""
        return await super().on_tick(counter) or self._service.failure is not None


def make_server(app: Guard, service: Service) -> uvicorn.Server:
    """Return a server of an application.

    Args:
      app: the application.
      service: its models.
    """
    settings: dict[str, Any] = {
        "http": _ImpatientProtocol,
        "loop": "asyncio",
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": MOST_HEADER_BYTES,
        "timeout_keep_alive": 30,
    }
    return _Server(uvicorn.Config(app, **settings), service)


def serve(app: Guard, service: Service, listening: socket.socket) -> None:
    """Serve until a signal ends the process, and finish what is in flight.

    Args:
      app: the application.
      service: its models.
      listening: the socket.

    Raises:
      BaseException: that of a model which cannot be loaded.
    """
    make_server(app, service).run([listening])
    if service.failure is not None:
        raise service.failure
    if service.is_alive:  # a model that is being loaded would hold up the end of the process, or crash in it
        sys.stdout.flush()
        os._exit(0)
