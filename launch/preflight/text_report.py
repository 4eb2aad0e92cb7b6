"""A preflight's result for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.preflight.topologies import GIB

Result = Mapping[str, Any]


def render(result: Result) -> str:
    """Return all of a result as text."""
    parts = [verdict(result), _attempts(result)]
    if result["programs"]:
        parts += [_memory(result), _work(result), _speed(result), _run(result)]
    assumptions = "\n".join(f"  - {line}" for line in result["assumptions"])
    return "\n\n".join([*filter(None, parts), f"assuming that\n{assumptions}"])


def verdict(result: Result) -> str:
    """Return where it was tried, and whether it fits."""
    topology = result["topology"]
    slices = f"{topology['slices']} slices of " if topology["slices"] > 1 else ""
    mesh = " × ".join(f"{axis} {size}" for axis, size in result["mesh"].items())
    where = f"{result['config']} on {slices}{topology['name']}: {topology['chips']} × {topology['chip']}, mesh {mesh}"
    if result["fits_as_configured"]:
        return f"{where}\nfits as configured"
    if result["fits"]:
        return f"{where}\ndoes not fit as configured; fits with {result['flags']}"
    needed = result["chips_needed"]
    more = f"its state alone needs at least {needed} such chips" if needed else "take more chips or shorter rows"
    if not result["settings"]["lora"]:
        more += ", or train adapters alone (a config with `lora`)"
    return f"{where}\ndoes not fit, nor with anything tried; {more}"


def _attempts(result: Result) -> str:
    """Return what was tried, where that was more than the config itself."""
    if len(result["attempts"]) == 1:
        return ""
    rows = [("tried", "GiB a chip", "")]
    for item in result["attempts"]:
        note = "fits" if item["fits"] else "too much" if item["compiled"] else "too much: the state alone"
        rows.append((item["flags"] or "as configured", _gib(item["memory"]["total"]), note))
    return table(rows)


def _memory(result: Result) -> str:
    programs = result["programs"]
    memories = [program["memory"] for program in programs.values()]
    kinds = list(dict.fromkeys(kind for memory in memories for kind in memory["kinds"]))
    capacity = _gib(result["topology"]["hbm_bytes"])
    rows = [(f"GiB a chip, of {capacity}", *programs)]
    rows += [
        (kind, *(_gib(memory["kinds"][kind]) if kind in memory["kinds"] else "" for memory in memories))
        for kind in kinds
    ]
    return table([*rows, ("total", *(_gib(memory["total"]) for memory in memories))])


def _work(result: Result) -> str:
    """Return what each chip does in a step, a prefill, or a decode step."""
    programs = [program for program in result["programs"].values() if "roofline" in program]
    rows = [("a chip, each time", *result["programs"])]
    rows.append(("operations, TFLOP", *(f"{program['flops_per_chip'] / 1e12:.3f}" for program in programs)))
    rows.append(("memory traffic, GB", *(f"{program['memory_bytes_per_chip'] / 1e9:.2f}" for program in programs)))
    kinds = sorted({item["kind"] for program in programs for item in program["collectives"]})
    rows += [(f"{kind}, GB (times)", *(_exchanged(program, kind) for program in programs)) for kind in kinds]
    return table(rows)


def _exchanged(program: Result, kind: str) -> str:
    chosen = [item for item in program["collectives"] if item["kind"] == kind]
    size, count = sum(item["bytes"] for item in chosen), sum(item["count"] for item in chosen)
    return f"{size / 1e9:.3f} ({count:.0f})"


def _speed(result: Result) -> str:
    programs = {name: program for name, program in result["programs"].items() if "roofline" in program}
    rows = [("roofline, ms", *programs)]
    for part in ("compute", "memory", "exchange"):
        rows.append((part, *(f"{1e3 * item['roofline'][f'{part}_seconds']:.2f}" for item in programs.values())))
    for part, says in (("least", "all overlapping"), ("most", "none overlapping")):
        rows.append((says, *(f"{1e3 * item['roofline'][f'{part}_seconds']:.2f}" for item in programs.values())))
    train = programs["train"]
    lines = [
        table(rows),
        f"training: MFU {span([100 * share for share in train['mfu']], '.1f')}%, "
        f"{span(train['examples_per_second'], ',.1f')} examples/s; "
        f"{100 * result['data']['useful_positions']:.0f}% of positions are not padding",
    ]
    if "decode" in programs:
        decode = programs["decode"]
        lines.append(
            f"generation: {span(decode['rows_per_second'], ',.0f')} tokens/s of {decode['rows']} answers "
            f"after prompts of {decode['prompt_length']}"
        )
    return "\n".join(lines)


def _run(result: Result) -> str:
    run = result["run"]
    if run["hours"] is None:
        return "the run: give --examples to have its steps, hours and cost worked out"
    cost = f", {span(run['usd'], ',.2f')} USD" if run["usd"] else "; give --price for its cost"
    return f"the run: {run['steps']} steps, {span(run['hours'], '.2f')} h of training steps{cost}"


def span(bounds: Sequence[float], form: str) -> str:
    """Example: `41.0–63.2`."""
    low, high = (format(bound, form) for bound in bounds)
    return low if low == high else f"{low}–{high}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *right]).rstrip())
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
