"""Several trainers that take the same steps in turns: their speeds, losses and memory side by side."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import matrix_products, sides
from benchmarks.sides import Side
from coi_jax.common import files

TURN = 3  # steps that a contestant takes in a row: after the others' turns the memory of the first is cold
PADDED_BATCH = 4  # examples in a microbatch of the paper's trainer
RECIPES = ["packed", "padded"]  # of transformers
ATTENTIONS = ["sdpa", "eager"]  # of transformers; the faster is measured
Steps = list[dict[str, Any]]  # what a contestant gave for each step


def compare(
    settings: dict[str, Any], counts: list[dict[str, int]], tolerance: float, peers: Sequence[str], tunix: str
) -> dict[str, Any]:
    """Let the contestants take their steps in turn, and set their speeds and losses side by side.

    Args:
      settings: of all sides.
      counts: of tokens in each batch.
      tolerance: largest difference of losses.
      peers: recipes of transformers.
      tunix: the interpreter that has Tunix; "" for none.
    """
    products = matrix_products.Products(settings)
    with contextlib.ExitStack() as stack:
        contestants = start(stack, settings, peers, tunix)
        attention = {
            f"peer_{each}": contestants[f"peer_{each}"].ask("choose_attention", names=ATTENTIONS) for each in peers
        }
        packages = {"tunix_packages": contestants["tunix"].ask("packages")} if tunix else {}
        taken: dict[str, Steps] = {name: [] for name in contestants}
        for begin in range(0, len(counts), TURN):
            products.measure()
            for name, side in contestants.items():
                turn = range(begin, min(begin + TURN, len(counts)))
                taken[name] += [side.ask("steps", first=step, count=1) for step in turn]
    report = packages | {"seconds_by_attention": attention}
    if "padded" in peers:
        positions = sum(step["positions"] for step in taken["peer_padded"])
        report["useful_share_when_padded"] = round(sum(each["tokens"] for each in counts) / positions, 4)
    memory = {"peak_bytes": {name: steps[-1]["memory"] for name, steps in taken.items()}}
    return report | summarise(taken, counts, tolerance) | memory | products.report(taken)


def start(stack: contextlib.ExitStack, settings: dict[str, Any], peers: Sequence[str], tunix: str) -> dict[str, Side]:
    """Start all sides; return them when they are ready. Those of transformers read the adapters that ours writes.

    Args:
      stack: ends them.
      settings: of all sides.
      peers: recipes of transformers.
      tunix: the interpreter that has Tunix; "" for none.
    """

    def begin(name: str, module: str, python: str = sys.executable, **of_side: Any) -> Side:
        path = Path(settings["folder"]) / f"{name}.json"
        files.write_json(path, settings | of_side)
        return stack.enter_context(Side(f"benchmarks.{module}", path, python=python))

    contestants = {"ours": begin("ours", "training_side_ours")}
    contestants["ours"].ask(sides.READY)
    microbatches = {"packed": settings["config"]["data"]["batch"]["rows"], "padded": PADDED_BATCH}
    for recipe in peers:
        of_side = {"recipe": recipe, "microbatch": microbatches[recipe]}
        contestants[f"peer_{recipe}"] = begin(f"peer_{recipe}", "training_side_peer", **of_side)
    if tunix:
        contestants["tunix"] = begin("tunix", "training_side_tunix", tunix)
    sides.all_ask(list(contestants.values()), sides.READY)
    return contestants


def summarise(taken: dict[str, Steps], counts: list[dict[str, int]], tolerance: float) -> dict[str, Any]:
    """Speeds of the timed steps, ratios step by step, and how far the losses of all steps differ.

    Args:
      taken: steps of each contestant.
      counts: of tokens in each batch.
      tolerance: largest difference of losses.
    """
    seconds = {name: [step["seconds"] for step in steps[1:]] for name, steps in taken.items()}
    losses = {name: [step["losses"][0] for step in steps] for name, steps in taken.items()}
    apart = np.ptp(np.array(list(losses.values())), axis=0)

    def speeds(name: str, kind: str) -> dict[str, float]:
        return sides.spread([each[kind] / time for each, time in zip(counts[1:], seconds[name], strict=True)], 1)

    def ratio(name: str) -> dict[str, float]:
        return sides.spread([theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)])

    return {
        "seconds_per_step": {name: sides.spread(times) for name, times in seconds.items()},
        "tokens_per_second": {name: speeds(name, "tokens") for name in taken},
        "target_tokens_per_second": {name: speeds(name, "target_tokens") for name in taken},
        "ratio": {name: ratio(name) for name in taken if name != "ours"},
        "losses": losses,
        "largest_loss_difference": float(apart.max()),
        "losses_agree": bool(apart.max() <= tolerance),
    }


def count(batch: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Examples of a packed batch, their tokens (the last one of each is predicted, not read), and the answers' own."""
    examples = int(batch["segments"].max(1).sum())
    return {
        "examples": examples,
        "tokens": int((batch["segments"] > 0).sum()) + examples,
        "target_tokens": int(batch["weights"].sum()),
    }
