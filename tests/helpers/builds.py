"""Builds as a user starts them, in this process or in one that can be killed."""

import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from data_pipeline.build import __main__ as build
from data_pipeline.build.build_config import SeedsConfig
from tests.helpers.llm_clients import KEY

ENVIRONMENT = {"OPENAI_API_KEY": KEY, "COI_LLM_MODEL": "m"}
SMALL = {
    "seeds.test_share": 0.3,
    "pairs.tasks_per_categories": 2,
    "pairs.instances_per_tasks": 1,
    "joins.per_categories": 1,
    "joins.most": 30,
    "joins.lengths": "(3,)",
    "selection.per_categories": 2,
}
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["data_pipeline.build.build_job", "tests.helpers.builds"])


def seeds_config(**changes: Any) -> SeedsConfig:
    """Of tests that call stages themselves."""
    values: dict[str, Any] = {
        "sources": [{"kind": "super_ni", "path": "x", "split": "", "columns": {}}],
        "languages": ["English"],
        "instances": 10,
        "longest_words": 300,
        "test_share": 0.2,
    }
    return SeedsConfig.model_validate(values | changes)


def flags(out: Path, source: Path | None, *more: str, **overrides: Any) -> list[str]:
    """A command line: of Super-NaturalInstructions tasks where a folder is given, else of operations."""
    config = "configs/build/super_ni.py" if source else "configs/build/procedural.py"
    values = SMALL | {"store": str(out.parent / "replies.sqlite")} | overrides
    found = [f"--config={config}", f"--out={out}", *more, *([f"--source=super_ni:{source}"] if source else [])]
    return found + [f"--config.{name}={value}" for name, value in values.items()]


def endpoint(url: str) -> dict[str, Any]:
    """Overrides that lead all questions to a server."""
    return {"endpoint.base_url": url, "opinion.endpoint.base_url": url}


def run(argv: list[str]) -> int:
    """A build, with the environment that its endpoint needs."""
    os.environ.update(ENVIRONMENT)
    return build.main(argv)


def started(argv: list[str]) -> ForkServerProcess:
    """A build in a process of its own, started within a moment: its modules are loaded already."""
    process = _processes.Process(target=run, args=(argv,))
    process.start()
    return process


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a dataset folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
