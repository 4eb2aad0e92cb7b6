import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.build.build_config import SeedsConfig
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.build.engine.stage_runner import REJECTED, Stage, StageRunner
from data_pipeline.build.instruction_sources import Refused
from data_pipeline.build.stages import ingest
from data_pipeline.build.stages.ingest import DUPLICATE, LEAKS, REPEATED, groups_for_tests
from tests.helpers import super_ni_tasks
from tests.helpers.builds import seeds_config

RUNNER = ["--runner=FnApiRunner"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = super_ni_tasks.write(tmp_path_factory.mktemp("tasks") / "super_ni")
    config = seeds_config(sources=[{"kind": "super_ni", "path": str(folder), "split": "", "columns": {}}])
    return made(StageRunner(str(folder.parent / "stages"), RUNNER), config)


def made(runner: StageRunner, config: SeedsConfig) -> Stage:
    return runner.run("seeds", None, [], lambda start: ingest.ingest(start, config, 0))


def test_every_instance_is_taken_or_refused(stage: Stage) -> None:
    seeds = [Seed.from_row(row) for row in stage.read()]
    instances = [instance.id for seed in seeds for instance in seed.instances]
    dropped = [row["row"]["instance"]["id"] for row in stage.read(REJECTED) if row["reason"] in (DUPLICATE, LEAKS)]
    assert len(instances) + len(dropped) == 12 * 8 + 10
    assert len(set(instances)) == len(instances)
    assert DUPLICATE in {row["reason"] for row in stage.read(REJECTED)}  # task 4 has an instance of task 3


def test_splits_share_no_task_no_input_and_no_open_output(stage: Stage) -> None:
    texts: dict[str, set[str]] = {"train": set(), "test": set()}
    groups: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in stage.read():
        seed = Seed.from_row(row)
        groups[seed.split].add(seed.group)
        for instance in seed.instances:
            texts[seed.split] |= {instance.input, *([] if seed.closed else [instance.output])}
    assert all(groups.values())
    assert not groups["train"] & groups["test"]
    assert not texts["train"] & texts["test"]


def test_the_same_files_give_the_same_seeds_in_any_order(stage: Stage, tmp_path: Path) -> None:
    """The pipeline spreads its work, and a split of tasks follows from all of them."""
    folder = super_ni_tasks.write(tmp_path / "super_ni")
    config = seeds_config(sources=[{"kind": "super_ni", "path": str(folder), "split": "", "columns": {}}])
    again = made(StageRunner(str(tmp_path / "stages"), RUNNER), config)
    assert sorted(map(json.dumps, again.read())) == sorted(map(json.dumps, stage.read()))


def seed(name: str, split: str, *instances: tuple[str, str], closed: bool = False) -> Seed:
    given = tuple(Instance(f"{name}-{k}", *texts) for k, texts in enumerate(instances))
    return Seed(name, "s", "l", name, split, None, "d", "", (), "", closed, given)


@pytest.fixture
def without_leaks(tmp_path: Path) -> Callable[[list[Seed]], tuple[dict[str, list[str]], list[str]]]:
    """The ids of the instances that are left, by task, and the reasons for those that are not."""
    import apache_beam as beam

    def run(seeds: list[Seed]) -> tuple[dict[str, list[str]], list[str]]:
        def make(start: Any) -> dict[str, Any]:
            flows = ingest._without_leaks(start | beam.Create(seeds))
            return {
                "out": flows["out"] | "o" >> beam.Map(Seed.row),
                REJECTED: flows[REJECTED] | "r" >> beam.Map(dataclasses.asdict),
            }

        stage = StageRunner(str(tmp_path), RUNNER).run("s", None, [], make)
        left = {row["id"]: [one["id"] for one in row["instances"]] for row in stage.read()}
        return left, sorted(row["reason"] for row in stage.read(REJECTED))

    return run


def test_training_gives_way_where_a_text_stands_in_both(without_leaks: Any) -> None:
    train = seed("a", "train", ("in", "x"), ("other", "Out 1"), ("fine", "y"))
    test = seed("b", "test", ("IN ", "z"), ("third", "out  1"))
    left, reasons = without_leaks([train, test])
    assert left == {"a": ["a-2"], "b": ["b-0", "b-1"]}
    assert reasons == [LEAKS, LEAKS]


def test_closed_answers_are_shared_by_nature(without_leaks: Any) -> None:
    left, reasons = without_leaks(
        [seed("a", "train", ("p", "yes"), closed=True), seed("b", "test", ("q", "yes"), closed=True)]
    )
    assert left == {"a": ["a-0"], "b": ["b-0"]}
    assert reasons == []


def test_a_task_without_an_instance_left_goes(without_leaks: Any) -> None:
    left, reasons = without_leaks([seed("a", "train", ("p", "x")), seed("b", "test", ("p", "x"))])
    assert left == {"b": ["b-0"]}
    assert "a task without an instance left" in reasons


def test_a_task_whose_id_another_has_too_is_refused(without_leaks: Any) -> None:
    left, reasons = without_leaks([seed("a", "train", ("p", "x")), seed("a", "train", ("p", "x"), ("q", "y"))])
    assert list(left) == ["a"]
    assert reasons == [REPEATED]


@pytest.mark.parametrize(("number", "share", "wanted"), [(10, 0.2, 2), (3, 0.2, 1), (1, 0.5, 0), (10, 0.0, 0)])
def test_so_many_groups_are_for_tests(number: int, share: float, wanted: int) -> None:
    groups = [f"g{n}" for n in range(number)]
    assert len(groups_for_tests(groups, share)) == wanted
    assert groups_for_tests(groups[::-1], share) == groups_for_tests(groups, share)


def test_refusals_are_rows() -> None:
    assert dataclasses.asdict(Refused("r", {"a": 1})) == {"reason": "r", "row": {"a": 1}}
