"""Configs of tests: the quickstart's, with overrides and a network of a few parameters."""

from collections.abc import Mapping
from typing import Any

from coi_jax.config.run import RunConfig, load_config
from tests.helpers.paths import QUICKSTART

LORA = {
    "rank": 2,
    "alpha": 16.0,
    "targets": "attention|mlp",
    "dropout": 0.0,
    "rank_stabilized": False,
    "base_dtype": "float32",
}
SAMPLING = {"kind": "sample", "temperature": 1.0, "top_p": 1.0}
# Of the run, not of the network's architecture.
RUN_FIELDS: dict[str, Any] = {
    "dropout": 0.0,
    "dtype": "float32",
    "attention": "auto",
    "loss_chunk": None,
    "remat": "none",
    "scan_unroll": 1,
}


def dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides whose names were written as keyword arguments: `data__length=64` is `data.length`."""
    return {name.replace("__", "."): value for name, value in fields.items()}


def quickstart_config(overrides: Mapping[str, Any] = {}, **fields: Any) -> RunConfig:
    """The quickstart's config with overrides; one of `lora.*` puts adapters of rank 2 beside frozen weights.

    A section that is given whole wins over its single fields.
    """
    values = dict(overrides) | dotted(fields)
    adapters = {name: values.pop(name) for name in [*values] if name.startswith("lora.")}
    if adapters:
        values["lora"] = LORA | {name.removeprefix("lora."): value for name, value in adapters.items()}
    whole = tuple(f"{name}." for name, value in values.items() if isinstance(value, dict))
    return load_config(QUICKSTART, {name: value for name, value in values.items() if not name.startswith(whole)})


def epochs(count: float) -> dict[str, Any]:
    """Overrides for a run of some epochs."""
    return {"train.length.unit": "epochs", "train.length.count": count}


def examples(count: int, rows: int | None = None) -> dict[str, Any]:
    """Overrides for steps of some examples."""
    return {"data.batch": {"count": "examples", "examples": count, "rows": rows}}
