"""Chains from Super-NaturalInstructions with a language model, as the paper's framework makes them (section 3).

Command: `python -m data_pipeline.build --config configs/build/super_ni.py --out data/built`
Before: `export OPENAI_API_KEY=… COI_LLM_MODEL=…`, and `OPENAI_BASE_URL=…` for an endpoint other than OpenAI's.
What it will cost: the same command with `--dry_run`. A better model for opinions: `--config.opinion.endpoint.model=…`.
"""

from ml_collections import ConfigDict

from configs.build import base


def get_config() -> ConfigDict:
    config = base.build("endpoint", sources=(dict(kind="super_ni", path="data/super_ni", split="", columns={}),))
    config.seeds.languages = ("English",)
    return config
