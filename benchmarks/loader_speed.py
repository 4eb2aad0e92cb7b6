"""Measures the loader: how full its rows are, and how many examples a second it gives.

  python -m benchmarks.loader_speed --config configs/quickstart.py --config.data.folder=data/coi

Prints JSON for both ways of counting a step: `packing_efficiency` (share of positions that are not padding) and
`examples_per_second` and `tokens_per_second` from the token cache, as the trainer reads it.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from coi_jax.common import cli
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import training_tasks
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary


def count(config: RunConfig, mode: str, examples: int, rows: int) -> RunConfig:
    """Return the config with steps of `examples` examples, or of `rows` rows, over one epoch.

    Args:
      config: to change.
      mode: "examples" or "tokens".
      examples: per step.
      rows: per step.
    """
    batch = {
        "examples": {"count": "examples", "examples": examples, "rows": None},
        "tokens": {"count": "tokens", "rows": rows},
    }[mode]
    values = config.model_dump(mode="json")
    values["data"]["batch"] = batch
    values["train"]["length"] = {"unit": "epochs", "count": 1.0}
    return validate(values)


def measure(
    config: RunConfig, caches: list[token_cache.TokenCache], vocabulary: Vocabulary, seconds: float
) -> dict[str, Any]:
    """Read steps for some time, from the first again where the epoch is over.

    Args:
      config: of the run.
      caches: to read.
      vocabulary: that they were written with.
      seconds: to read for.
    """
    loader = Loader(config, caches, vocabulary)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    examples = tokens = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for batch in loader.iterate(0, sharding):
            examples += int(batch["segments"].max(1).sum())
            tokens += int((batch["segments"] > 0).sum())
            if time.perf_counter() - began >= seconds:
                break
    elapsed = time.perf_counter() - began
    speed = {"examples_per_second": round(examples / elapsed), "tokens_per_second": round(tokens / elapsed)}
    return loader.statistics() | speed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a config file")
    parser.add_argument("--seconds", type=cli.number, default=10.0, help="how long to read, in either mode")
    parser.add_argument("--examples", type=cli.integer, default=256, help="examples a step")
    parser.add_argument("--rows", type=cli.integer, default=32, help="rows a step")
    arguments = parser.parse_args(rest)
    config = load_config(arguments.config, overrides)
    caches = token_cache.open_or_write(config, training_tasks(config))
    vocabulary = load_vocabulary(config)
    modes = {mode: count(config, mode, arguments.examples, arguments.rows) for mode in ("tokens", "examples")}
    results = {mode: measure(made, caches, vocabulary, arguments.seconds) for mode, made in modes.items()}
    print(json.dumps({"vocabulary": vocabulary.name, "length": config.data.length} | results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
