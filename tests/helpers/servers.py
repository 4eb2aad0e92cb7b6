"""A real server of a model on loopback, in a thread of the test."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai

from coi_jax.inference.model import load_to_ask
from coi_jax.serving.app import make_app
from coi_jax.serving.listening import open_socket
from coi_jax.serving.server import make_server
from coi_jax.serving.service import Limits, Service

LIMITS = Limits(slots=3, waiting=64, seconds=60.0)
HOSTS = ("127.0.0.1", "localhost")


@dataclass
class Server:
    """A server that runs."""

    url: str
    service: Service

    def client(self, **settings: Any) -> openai.OpenAI:
        """OpenAI's own client of it."""
        given: dict[str, Any] = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 60.0}
        return openai.OpenAI(**given | settings)

    def post(self, path: str, **settings: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, timeout=60.0, **settings)

    def get(self, path: str, **settings: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=60.0, **settings)


@contextlib.contextmanager
def running_server(*runs: Path, limits: Limits = LIMITS, key: str | None = None, **overrides: Any) -> Iterator[Server]:
    """A server of run folders, which is ready."""
    service = Service({run.name: load_to_ask(run, overrides) for run in runs}, limits)
    listening = open_socket("127.0.0.1", 0)
    server = make_server(make_app(service, HOSTS, key), service)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not service.is_ready:
            assert service.failure is None, service.failure
            time.sleep(0.02)
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
