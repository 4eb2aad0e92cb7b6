"""Chains of procedural operations through the same stages, with no language model: verdicts and outputs are computed.

Command: `python -m data_pipeline.build --config configs/build/procedural.py --out data/built`
With `--config.llm=endpoint` a model answers instead, and the build tells its precision and recall at every stage.
"""

from ml_collections import ConfigDict

from configs.build import base


def get_config() -> ConfigDict:
    config = base.build("procedural", sources=(dict(kind="procedural", path="lists,numbers", split="", columns={}),))
    config.pairs.instances_per_tasks = 4
    config.joins.per_categories = 4
    config.selection.per_categories = 12
    config.variants = ("irrelevant", "shuffled", "final")
    config.erasure.least_rouge_l = None  # the outputs are computed, so a right answer is the same text
    return config
