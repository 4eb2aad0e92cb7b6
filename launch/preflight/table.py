"""Runs preflight for several models on several slices, and prints its results as a Markdown table.

A cell is a child process and leaves a JSON file; run again to go on. Of 20 cells each takes some minutes on two cores.
Example: python -m launch.preflight.table --out runs/preflight
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from coi_jax.common import child_processes, cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, check_not_kept
from launch.preflight import __main__ as preflight
from launch.preflight.text_report import span
from launch.preflight.topologies import GIB

CONFIG = "configs/mistral_7b.py"
EXAMPLES = 16_343  # single instructions and chains of two, as many as the paper tunes coi12 on
Overrides = dict[str, Any]

T5: Overrides = {"model.preset": "flan_t5_xxl", "data.length": 1024, "data.targets_length": 512}
MODELS: dict[str, tuple[str, Overrides]] = {  # config file, and what is changed of it
    "Mistral-7B, all weights": (CONFIG, {}),
    "Mistral-7B, LoRA": (f"{CONFIG}:lora", {}),
    "Llama-2-7B, all weights": (CONFIG, {"model.preset": "llama2_7b"}),
    "FLAN-T5-XXL, all weights": (CONFIG, T5),
}
# 256 examples fill no more than about a hundred rows of 1024: a pod's other chips divide heads and MLP.
POD: Overrides = {"mesh.tensor": 4, "data.length": 1024}
TOPOLOGIES: dict[str, Overrides] = {"v5e-16": {}, "v5e-256": POD, "v5p-128": {}, "v6e-8": {}, "v6e-256": POD}


@dataclass(frozen=True)
class Cell:
    """A model on a slice."""

    model: str
    topology: str
    config: str  # the config file
    overrides: Overrides
    path: epath.Path  # of its result

    def result(self) -> dict[str, Any] | None:
        """Return its result; None where there is none, or one of other overrides."""
        if not self.path.is_file():
            return None
        result = files.read_object(self.path)
        return result if result.get("overrides") == cli.split_overrides(cli.override_flags(self.overrides))[1] else None

    def command(self) -> list[str]:
        """Return what makes its result."""
        return [
            sys.executable,
            "-m",
            "launch.preflight",
            f"--config={self.config}",
            f"--topology={self.topology}",
            f"--examples={EXAMPLES}",
            "--train_only",
            f"--out={self.path}",
            *cli.override_flags(self.overrides),
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 where a cell could not be computed."""
    arguments = _parser().parse_args(argv)
    check_not_kept(arguments.out, "--out")
    everything = cells(arguments.out)
    chosen = [cell for cell in everything if not arguments.only or cell.path.stem in arguments.only]
    unknown = set(arguments.only) - {cell.path.stem for cell in everything}
    if unknown:
        raise UserError(
            "only", min(unknown), f"no such cell; one of {', '.join(cell.path.stem for cell in everything)}"
        )
    failed = 0 if arguments.dry_run else sum(not compute(cell) for cell in chosen)
    print(markdown(everything))
    return int(failed > 0)


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--out", required=True, metavar="DIR", help="holds the cells' JSON files")
    parser.add_argument("--only", nargs="+", default=[], metavar="CELL", help="the cells to compute, by file name")
    parser.add_argument("--dry_run", action="store_true", help="compute none, print what is there")
    return parser


def cells(folder: PathLike) -> list[Cell]:
    """Return all cells, model by model."""
    return [
        Cell(model, topology, config, own | of_slice, as_path(folder, "--out") / f"{_stem(model)}_{topology}.json")
        for model, (config, own) in MODELS.items()
        for topology, of_slice in TOPOLOGIES.items()
    ]


def _stem(model: str) -> str:
    return model.lower().replace(", all weights", "").replace(", ", "_").replace("-", "_")


def compute(cell: Cell) -> bool:
    """Compute a cell unless its result is there; False where that failed."""
    if cell.result() is not None:
        return True
    print(f"== {cell.model} on {cell.topology}", file=sys.stderr, flush=True)
    environment = child_processes.without_secrets(os.environ, child_processes.STORES) | child_processes.environment()
    status = subprocess.run(cell.command(), stdout=subprocess.DEVNULL, env=environment, check=False).returncode
    return status in (0, preflight.EXIT_DOES_NOT_FIT)


def markdown(cells: Sequence[Cell]) -> str:
    """Return the table: a row for each model, a column for each slice; a cell without a result stays empty."""
    lines = [f"| | {' | '.join(TOPOLOGIES)} |", "|---" * (len(TOPOLOGIES) + 1) + "|"]
    for model in MODELS:
        row = [describe(cell.result()) for cell in cells if cell.model == model]
        lines.append(f"| {model} | {' | '.join(row)} |")
    return "\n".join(lines)


def describe(result: dict[str, Any] | None) -> str:
    """Return what a cell of the table says: settings, memory, and what the roofline leaves possible."""
    if result is None:
        return ""
    settings = " ".join(f"`{name}={value}`" for name, value in _settings(result))
    capacity = result["topology"]["hbm_bytes"] / GIB
    if not result["fits"]:
        attempts = [item["memory"] for item in result["attempts"]]
        whole = [memory for memory in attempts if "temporaries" in memory["kinds"]]  # others are the state alone
        needs = min(memory["total"] for memory in whole or attempts) / GIB
        return f"no: {needs:.2f} of {capacity:.2f} GiB at least"
    train = result["programs"]["train"]
    times = [train["roofline"][f"{end}_seconds"] for end in ("least", "most")]
    parts = (
        f"{'yes' if result['fits_as_configured'] else 'with'} {settings}",
        f"{train['memory']['total'] / GIB:.1f} of {capacity:.1f} GiB",
        f"{span(times, '.2f')} s a step",
        f"MFU {span([100 * share for share in train['mfu']], '.0f')}%",
        f"{span(train['examples_per_second'], ',.0f')} examples/s",
    )
    return "<br>".join(parts)


def _settings(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what decides over memory: what the backward pass keeps, parts of a step, how the mesh divides."""
    mesh = [(axis, size) for axis, size in result["mesh"].items() if size > 1 and axis != "fsdp"]
    parts = result["settings"]["train.microbatches"]
    return [("remat", result["settings"]["model.remat"]), *([("microbatches", parts)] if parts > 1 else []), *mesh]


if __name__ == "__main__":
    sys.exit(cli.run(main))
