"""`report.html`: one self-contained page that shows what a build made, from its stages.

The page holds the numbers as HTML, and the chains as JSON that a script shows as text: nothing of the data is ever
read as HTML.
"""

import collections
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from coi_jax.common import files
from coi_jax.common.local_page import safe_json
from coi_jax.llm.budget import Prices
from data_pipeline.build import decisions, llm_stages
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import REJECTED, USAGE, Row, Stage
from data_pipeline.build.pipeline import BuildResult
from data_pipeline.build.review import chain_outcomes, model_quality, strategies
from data_pipeline.build.review.chain_outcomes import Outcome
from data_pipeline.build.stages.checks import NOT_COMPOSABLE
from data_pipeline.percentiles import percentiles

PAGES = Path(__file__).parent / "pages"
SHOWN_CHAINS = 5000  # that the page's table holds; more make it slow to open
PERCENTILES = (5, 25, 50, 75, 95)


def write_report(path: str, config: BuildConfig, built: BuildResult, spent: float, found: Decisions) -> None:
    """Write the page of a build.

    Args:
      path: of the page, local or in a bucket.
      config: of the build.
      built: its stages.
      spent: US dollars, of all runs.
      found: people's decisions.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGES), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html").render(**content(config, built, spent, found))
    files.write_bytes(path, page.encode())


def content(config: BuildConfig, built: BuildResult, spent: float, found: Decisions) -> dict[str, Any]:
    """Return everything that the page shows.

    Args:
      config: of the build.
      built: its stages.
      spent: US dollars, of all runs.
      found: people's decisions.
    """
    chains = list(chain_outcomes.outcomes(built))
    shown = sample(chains)
    return {
        "title": ", ".join(sorted({seed["source"] for seed in built.seeds.read()})),
        "model": "computed" if config.llm == "procedural" else config.endpoint.model,
        "other_model": config.opinion.endpoint.model if config.opinion.enabled and config.llm == "endpoint" else "",
        "counts": _counts(built),
        "funnels": funnels(built),
        "reasons": reasons(built.every),
        "heat": heat_map(built),
        "words": words(built),
        "validity": validity(built),
        "costs": costs(config, built),
        "spent": spent,
        "agreement": decisions.agreement((one.draft for one in chains), found),
        "opinions": _scores(chains),
        "replies": model_quality.replies(built.every),
        "truth": model_quality.truth(built),
        "strategies": strategies.rows(built),
        "number": len(chains),
        "shown": len(shown),
        "chains": safe_json([chain_row(chain) for chain in shown]),
    }


def _counts(built: BuildResult) -> list[tuple[str, dict[int, int]]]:
    counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for row in built.selected.read():
        counts[row["split"]][len(row["steps"])] += 1
    return [(split, dict(sorted(by.items()))) for split, by in sorted(counts.items(), reverse=True)]


def funnels(built: BuildResult) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """Return the funnels of seeds and of each length: for every step the rows that are left, and their share."""
    read = built.seeds.counts["out"] + sum(row["reason"] != "another language" for row in built.seeds.read(REJECTED))
    found = [
        (
            "tasks",
            [
                ("rows read", read),
                ("seeds", built.seeds.counts["out"]),
                ("with a short instruction", built.tasks.counts["out"]),
            ],
        )
    ]
    kept = {_passed(name): _by_length(stage) for name, stage in built.chains.items()}
    written = _by_length(built.selected)
    for length, stages in built.candidates.items():
        first = next(iter(stages.values()))
        steps = [
            ("candidates", first.counts["out"] + first.counts[REJECTED]),
            *((_passed(name), stage.counts["out"]) for name, stage in stages.items()),
            *((passed, counts[length]) for passed, counts in kept.items()),
            ("written", written[length]),
        ]
        found.append((f"chains of {length} steps", steps))
    return [(name, [(what, number, number / max(steps[0][1], 1)) for what, number in steps]) for name, steps in found]


def _passed(name: str) -> str:
    """Return the words for what a stage lets through."""
    entry = llm_stages.find(name)
    return entry.passed if entry else name


def _by_length(stage: Stage) -> collections.Counter[int]:
    return collections.Counter(len(row["steps"]) for row in stage.read())


def reasons(stages: Sequence[Stage]) -> list[tuple[str, str, int]]:
    """Return why rows were rejected, by stage, the most frequent first."""
    found = collections.Counter((stage.name, row["reason"]) for stage in stages for row in stage.read(REJECTED))
    return [(stage, reason, number) for (stage, reason), number in found.most_common()]


def heat_map(built: BuildResult) -> dict[str, Any]:
    """Return, for each pair of categories, the number of candidates and the share whose second step can follow."""
    tried: collections.Counter[tuple[str, str]] = collections.Counter()
    passed: collections.Counter[tuple[str, str]] = collections.Counter()
    for stage in built.checked.values():
        for row in stage.read():
            tried[_last_pair(row)] += 1
            passed[_last_pair(row)] += 1
        for row in stage.read(REJECTED):
            if row["reason"] == NOT_COMPOSABLE:
                tried[_last_pair(row["row"])] += 1
    firsts, seconds = ([*dict.fromkeys(sorted(pair[side] for pair in tried))] for side in (0, 1))
    cells = {pair: (passed[pair] / number, passed[pair], number) for pair, number in tried.items()}
    return {"firsts": firsts, "seconds": seconds, "cells": cells}


def _last_pair(row: Row) -> tuple[str, str]:
    first, second = row["steps"][-2:]
    return first["category"] or "unknown", second["category"] or "unknown"


def words(built: BuildResult) -> list[tuple[str, list[int], int]]:
    """Return percentiles of the words of definitions, instructions, inputs and outputs, and the number of texts."""
    texts: dict[str, list[int]] = collections.defaultdict(list)
    for seed in built.tasks.read():
        texts["definition of a task"].append(len(seed["definition"].split()))
        texts["short instruction"].append(len(seed["instruction"].split()))
    for row in built.selected.read():
        texts["input of a chain"].append(len(row["input"].split()))
        for number, step in enumerate(row["steps"], 1):
            texts[f"output of step {number}"].append(len(step["output"].split()))
    return [(name, percentiles(values, PERCENTILES), len(values)) for name, values in texts.items()]


def validity(built: BuildResult) -> list[dict[str, Any]]:
    """Return by category of a last step the candidates, the share that can follow, and the mean score of chains."""
    tried: dict[str, list[bool]] = collections.defaultdict(list)
    scores: dict[str, list[int]] = collections.defaultdict(list)
    for stage in built.checked.values():
        for row in stage.read():
            tried[_last_pair(row)[1]].append(True)
        for row in stage.read(REJECTED):
            if row["reason"] == NOT_COMPOSABLE:
                tried[_last_pair(row["row"])[1]].append(False)
    if built.opinions:
        rejected = (row["row"] for row in built.opinions.read(REJECTED))
        for row in itertools.chain(built.opinions.read(), rejected):
            if row["opinion"]:
                scores[_last_pair(row)[1]].append(row["opinion"]["score"])
    return [
        {
            "category": category,
            "tried": len(verdicts),
            "share": statistics.fmean(verdicts),
            "score": statistics.fmean(scores[category]) if scores[category] else None,
        }
        for category, verdicts in sorted(tried.items(), key=lambda item: -len(item[1]))
    ]


def costs(config: BuildConfig, built: BuildResult) -> list[dict[str, Any]]:
    """Return the calls, tokens and US dollars of each stage that asked something, at the config's prices."""
    found = []
    for stage in built.every:
        usage = next(iter(stage.read(USAGE)), None)
        if usage and usage["calls"]:
            endpoint = llm_stages.endpoint_of(stage.name, config)
            prices = Prices(endpoint.prompt_price, endpoint.completion_price)
            cost = prices.of_tokens(usage["prompt_tokens"], usage["completion_tokens"])
            found.append({"stage": stage.name, "usd": cost} | usage)
    return found


def sample(chains: list[Outcome]) -> list[Outcome]:
    """Return all chains, or as many as the page holds, by their ids: a random sample, for ids are hashes."""
    return sorted(chains, key=lambda chain: chain.draft.id)[:SHOWN_CHAINS]


def chain_row(chain: Outcome) -> Row:
    """Return a chain as the page's script reads it."""
    draft = chain.draft
    row = draft.row()
    return {
        "id": draft.id,
        "status": chain.status,
        "reason": chain.reason,
        "split": draft.split,
        "input": draft.input,
        "instance": draft.instance,
        "replies": row["replies"],
        "opinion": row["opinion"],
        "verdicts": row["verdicts"],
        "steps": [[step.instruction, step.output, step.category, step.task] for step in draft.steps],
    }


def _scores(chains: list[Outcome]) -> list[tuple[int, int, float]]:
    """Return how often each score was given, and its share of the most frequent one."""
    counts = collections.Counter(one.draft.opinion.score for one in chains if one.draft.opinion)
    most = max(counts.values(), default=1)
    return [(score, counts[score], counts[score] / most) for score in range(1, 6)] if counts else []
