"""Readers of configs: of runs, builds, judges, sweeps and published models, and the overrides of a command line."""

import functools
import json
import random
from pathlib import Path
from typing import Any

from coi_jax.common.cli import split_overrides
from coi_jax.common.schema import Section
from coi_jax.config import loading
from coi_jax.config.overrides import override
from coi_jax.config.run import RunConfig, load_config, read_run_config, validate
from coi_jax.config.validation import validate as validate_as
from coi_jax.families.published_config import from_hf_config, unread_fields
from coi_jax.judging.judge_config import JudgeConfig
from data_pipeline.build.build_config import BuildConfig
from launch.sweep.points import expand
from tests.helpers.configs import quickstart_config
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import TEXTS, mutate_json, mutate_json_text, mutate_text, odd_value
from tests.helpers.paths import CONFIGS
from tests.soak.targets.scratch import read_file, read_files

LITERALS = (
    "3",
    "1e-4",
    "(1, 2)",
    "['a', 'b']",
    "{'kind': 'greedy'}",
    "None",
    "True",
    "coi12",
    "lambda: 0",
    "__import__('os')",
    "((((((((",
    "-" * 2000 + "1",
    "9" * 5000,
    "1_0",
    "0x" + "f" * 300,
    "'a' 'b'",
    "f'{1}'",
    "1+2j",
    "b'x'",
    "..",
    "[" * 300 + "]" * 300,
)
HF_CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "eos_token_id": [1, 2],
        "quantization_config": None,
    },
    {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 16,
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "sliding_window": 8,
            "query_pre_attn_scalar": 256,
            "rope_local_base_freq": 1e4,
        },
        "vision_config": {},
    },
    {
        "model_type": "phi3",
        "hidden_size": 16,
        "num_attention_heads": 4,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.0, 2.0]},
        "original_max_position_embeddings": 64,
        "partial_rotary_factor": 1.0,
    },
    {
        "model_type": "mt5",
        "d_model": 16,
        "feed_forward_proj": "gated-gelu",
        "num_layers": 2,
        "num_decoder_layers": None,
    },
    {"model_type": "smollm3", "no_rope_layers": [1, 0], "no_rope_layer_interval": 2, "num_hidden_layers": 2},
    {"model_type": "qwen2", "max_window_layers": 1, "use_sliding_window": True, "sliding_window": 4},
)


@functools.cache
def _run_config() -> str:
    return json.dumps(quickstart_config().model_dump(mode="json"))


@functools.cache
def _names() -> tuple[str, ...]:
    def names(values: dict[str, Any], prefix: str) -> list[str]:
        found = []
        for key, value in values.items():
            found += [prefix + key, *(names(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
        return found

    return tuple(names(json.loads(_run_config()), ""))


def _overrides(rng: random.Random) -> dict[str, Any]:
    """Return overrides of a run's fields, as a command line or a sweep gives them."""
    found: dict[str, Any] = {}
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(_names())
        if rng.random() < 0.2:
            name = mutate_text(name, rng)
        text = rng.choice(LITERALS)
        value = rng.choice((text, mutate_text(text, rng), odd_value(rng), rng.choice(TEXTS)))
        found[name] = value
    return found


def _override(overrides: dict[str, Any]) -> None:
    values = json.loads(_run_config())
    override(values, overrides, RunConfig)
    validate(values)


def _flags(rng: random.Random) -> list[str]:
    found = []
    for name, value in _overrides(rng).items():
        flag = rng.choice(("--config.", "--noconfig.", "--config", "--")) + name
        found += rng.choice(([f"{flag}={value}"], [flag, str(value)], [flag]))
    return found


def _read_flags(argv: list[str]) -> None:
    _, overrides = split_overrides(argv)
    _override(overrides)


@functools.cache
def _other_configs() -> dict[str, tuple[type[Section], dict[str, Any]]]:
    build = loading.read(CONFIGS / "build" / "super_ni.py")
    return {
        "build": (BuildConfig, json.loads(json.dumps(build))),
        "judge": (JudgeConfig, loading.read(CONFIGS / "judge" / "pairwise.py")),
    }


def _other_config(rng: random.Random) -> tuple[str, Any]:
    name = rng.choice([*_other_configs()])
    return name, mutate_json(json.loads(json.dumps(_other_configs()[name][1])), rng)


def _read_other(given: tuple[str, Any]) -> None:
    """Validate the config of a build or of a judge, as it comes out of its file."""
    name, values = given
    if isinstance(values, dict):
        validate_as(_other_configs()[name][0], values)


def _read_published(data: bytes) -> None:
    def read(path: Path) -> None:
        values = loading.read(path)
        from_hf_config(values)
        unread_fields(values)

    read_files({"config.json": data}, lambda folder: read(folder / "config.json"))


def _sweep_file(rng: random.Random) -> bytes:
    points = [{"arm": "coi12", "seed": 1}, {"arm": "coi1", "optimizer.learning_rate": 1e-3}]
    points = [mutate_json(points[0], rng), points[1]] if rng.random() < 0.8 else mutate_json(points, rng)
    text = f"CONFIG = {str(CONFIGS / 'quickstart.py')!r}\ninf, nan = float('inf'), float('nan')\n"
    return f"{text}def sweep():\n    return {points!r}\n".encode("utf-8", "surrogatepass")


def _read_config_file(path: Path) -> None:
    read_run_config(path, "workdir")


def _load_config_file(path: Path) -> None:
    load_config(path, {})


TARGETS: dict[str, Target] = {
    "run_config": Target(lambda rng: mutate_json_text(_run_config(), rng), read_file("config.json", _read_config_file)),
    "config_file": Target(
        lambda rng: mutate_json_text(_run_config(), rng), read_file("config.json", _load_config_file)
    ),
    "build_and_judge_configs": Target(_other_config, _read_other),
    "overrides": Target(_overrides, _override),
    "override_flags": Target(_flags, _read_flags),
    "sweep_file": Target(_sweep_file, read_file("sweep.py", lambda path: expand(path, {}, path.parent / "out"))),
    "published_config": Target(lambda rng: mutate_json_text(json.dumps(rng.choice(HF_CONFIGS)), rng), _read_published),
}
