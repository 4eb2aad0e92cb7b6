import collections
import dataclasses
import heapq
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.common import files
from data_pipeline.build import rules
from data_pipeline.build.build_config import PairsConfig
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.build.engine.stage_runner import StageRunner
from data_pipeline.build.stages import pairing
from data_pipeline.build.stages.pairing import Group, count_pairs, select_pairs

CATEGORIES = ["Summarization", "Title Generation", "Paraphrasing", "Sentiment Analysis", "Code to Text"]


def task(number: int, category: str, split: str = "train", *, closed: bool = False) -> Seed:
    instances = tuple(Instance(f"task{number}-{k}", f"input {number} {k}", f"output {number} {k}") for k in range(4))
    return Seed(f"task{number}", "s", "l", "g", split, category, "d", f"Do {number}.", (), "", closed, instances)


def grouped(tasks: list[Seed]) -> list[Group]:
    by_key: dict[str, list[str]] = collections.defaultdict(list)
    for key, name in map(pairing._keyed, tasks):
        by_key[key].append(name)
    return pairing._groups(by_key.items(), 0)


tasks = st.lists(
    st.tuples(st.sampled_from(CATEGORIES), st.sampled_from(["train", "test"]), st.booleans()), max_size=30
).map(lambda given: [task(number, name, split, closed=closed) for number, (name, split, closed) in enumerate(given)])


@given(tasks)
def test_counts_are_those_of_judging_every_ordered_pair(tasks: list[Seed]) -> None:
    judge = rules.PairRules(tasks)
    counts = collections.Counter(
        (judge.pair(first, second), first.category, second.category)
        for first, second in itertools.product(tasks, tasks)
    )
    assert count_pairs(grouped(tasks)) == counts


@given(tasks, st.integers(1, 4))
def test_selected_pairs_have_the_lowest_hashes_of_all_allowed_ones(tasks: list[Seed], number: int) -> None:
    judge = rules.PairRules(tasks)
    ranked: dict[tuple[str, ...], list[tuple[str, tuple[str, str]]]] = collections.defaultdict(list)
    for first, second in itertools.product(tasks, tasks):
        if judge.pair(first, second) == rules.OK and judge.may_start(first.id):
            key = (first.split, str(first.category), str(second.category))
            ranked[key].append((files.digest([0, first.id, second.id]), (first.id, second.id)))
    lowest = [pair for pairs in ranked.values() for _, pair in heapq.nsmallest(number, pairs)]
    assert sorted(select_pairs(grouped(tasks), number, 0)) == sorted(lowest)


@settings(max_examples=20)
@given(st.integers(50, 400), st.integers(1, 6))
def test_of_many_tasks_a_part_is_ranked_and_every_selected_pair_is_allowed(number: int, wanted: int) -> None:
    tasks = [task(k, CATEGORIES[k % 3]) for k in range(number)]
    judge, by_id = rules.PairRules(tasks), {one.id: one for one in tasks}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "RANKED_PAIRS", 500)
        hashed: list[object] = []
        digest = files.digest

        def record(value: object) -> str:
            hashed.append(value)
            return digest(value)

        patch.setattr(files, "digest", record)
        selected = list(select_pairs(groups := grouped(tasks), wanted, 0))
        assert list(select_pairs(groups, wanted, 0)) == selected
    assert len(hashed) < 2 * (500 + 9 * 2 * 40) + 3 * number  # the ranked pairs, rounded up, and each task's own
    assert len(set(selected)) == len(selected)
    assert all(judge.pair(by_id[first], by_id[second]) == rules.OK for first, second in selected)
    counts = collections.Counter((by_id[first].category, by_id[second].category) for first, second in selected)
    assert counts
    assert set(counts.values()) == {wanted}


def test_the_stage_gives_each_pair_its_instances_and_steps(tmp_path: Path) -> None:
    import apache_beam as beam

    given = [task(k, CATEGORIES[k % 2]) for k in range(6)]
    config = PairsConfig(tasks_per_categories=2, instances_per_tasks=3)
    stage = StageRunner(str(tmp_path), ["--runner=FnApiRunner"]).run(
        "pairs", None, [], lambda start: pairing.pair(start | beam.Create([one.row() for one in given]), config, 0)
    )
    selected = set(select_pairs(grouped(given), 2, 0))
    rows = list(stage.read())
    assert {tuple(step["task"] for step in row["steps"]) for row in rows} == selected
    assert len(rows) == 3 * len(selected)
    by_id = {one.id: one for one in given}
    for row in rows:
        first, second = (by_id[step["task"]] for step in row["steps"])
        instance = next(one for one in first.instances if one.id == row["instance"])
        assert (row["input"], row["steps"][0]["output"]) == (instance.input, instance.output)
        assert [step["instruction"] for step in row["steps"]] == [first.instruction, second.instruction]
        assert row["steps"][1]["output"] is None
    assert sum(entry[-1] for entry in next(iter(stage.read(pairing.COUNTS)))["counts"]) == 36


def test_tasks_of_two_roles_of_a_category_are_two_groups() -> None:
    open_, closed = task(1, CATEGORIES[0]), dataclasses.replace(task(2, CATEGORIES[0]), closed=True)
    assert sorted(group.tasks for group in grouped([open_, closed])) == [("task1",), ("task2",)]
