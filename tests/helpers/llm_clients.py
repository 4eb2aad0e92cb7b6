"""Clients of a test server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from coi_jax.llm import Call, Client, Message
from coi_jax.llm.budget import Budget, Prices
from coi_jax.llm.reply_store import Store, open_store
from coi_jax.llm.settings import EndpointConfig

KEY = "sk-a-key-that-must-never-be-written-down"
PRICES = Prices(1.0, 2.0)


class Output(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    output: str


def config(url: str, **changes: Any) -> EndpointConfig:
    values: dict[str, Any] = dict(
        base_url=url,
        model="m",
        key_variable="OPENAI_API_KEY",
        temperature=0.0,
        token_limit_field="max_tokens",
        reply_tokens=None,
        reasoning_effort=None,
        extra_body={},
        structured="json_schema",
        prompt_price=PRICES.prompt,
        completion_price=PRICES.completion,
        batch_price_share=0.5,
        concurrency=8,
        processes=1,
        requests_per_minute=None,
        tokens_per_minute=None,
        timeout_seconds=10.0,
        attempts=10,
        patience_seconds=30.0,
        declined_share=0.5,
    )
    return EndpointConfig(**values | changes)


def call(text: str, **changes: Any) -> Call:
    return Call("m", (Message("system", "s"), Message("user", text)), 0.0, 50, **changes)


@contextlib.contextmanager
def client(
    url: str,
    folder: Path,
    *,
    store: Store | None = None,
    dollars: float | None = None,
    offline: bool = False,
    **changes: Any,
) -> Iterator[Client]:
    settings = config(url, **changes)
    budget = Budget(str(folder / "spending"), dollars, PRICES, settings.concurrency)
    with Client(settings, KEY, store or open_store(str(folder / "r.sqlite")), budget, offline=offline) as made:
        yield made
