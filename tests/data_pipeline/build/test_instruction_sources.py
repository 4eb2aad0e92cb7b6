import json
import os
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from data_pipeline.build import instruction_sources
from data_pipeline.build.build_config import SourceConfig
from data_pipeline.build.drafts import Seed
from data_pipeline.build.instruction_sources import NOTHING, Refused, is_closed
from data_pipeline.procedural.verification import execute
from tests.helpers import super_ni_tasks
from tests.helpers.builds import seeds_config


def read(folder: Path, pattern: str, **changes: Any) -> tuple[list[Seed], list[Refused]]:
    found = [
        one
        for path in sorted(folder.glob(pattern))
        for one in instruction_sources.read_super_ni(str(path), seeds_config(**changes), 0)
    ]
    return [one for one in found if isinstance(one, Seed)], [one for one in found if isinstance(one, Refused)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return super_ni_tasks.write(tmp_path_factory.mktemp("tasks") / "super_ni")


def test_fields_may_be_texts_or_lists(folder: Path) -> None:
    (as_lists,), _ = read(folder, "task002*")
    (as_texts,), _ = read(folder, "task003*")
    assert as_lists.category == "Title Generation"
    assert as_texts.category == "Question Generation"
    assert as_texts.definition.startswith("Ask a question")
    assert len(as_texts.instances) == 8


def test_rows_that_cannot_be_used_are_refused_with_a_reason(folder: Path) -> None:
    (seed,), refused = read(folder, "task001*", instances=50)
    assert len(seed.instances) == 8
    assert sorted(one.reason for one in refused) == [
        "an input that the task has twice",
        "an instance without an input",
        "an instance without an output",
        "an instance without an output",
        "longer than longest_words",
    ]


def test_instances_of_one_id_in_the_source_get_ids_of_their_own(tmp_path: Path) -> None:
    rows = [{"id": "same", "input": f"Report {number}.", "output": [f"On {number}."]} for number in range(3)]
    made = super_ni_tasks.task("Shorten the text.", "Summarization", rows)
    (tmp_path / "task1.json").write_text(json.dumps(made), encoding="utf-8")
    (seed,), refused = read(tmp_path, "task1*")
    ids = [instance.id for instance in seed.instances]
    assert len(set(ids)) == 3
    assert "same" in ids
    assert not refused


def test_other_languages_and_what_is_no_task_are_refused(folder: Path) -> None:
    assert [one.reason for one in read(folder, "task091*")[1]] == ["another language"]
    assert len(read(folder, "task091*", languages=[])[0]) == 1
    (broken,) = read(folder, "task092*")[1]
    assert broken.reason.startswith("not a task of Super-NaturalInstructions")


def test_a_task_without_a_definition_is_refused(tmp_path: Path) -> None:
    for number, definition in enumerate(([], [" "], None, 3)):
        made = super_ni_tasks.task("x", "Misc.", [{"id": "a", "input": "b", "output": ["c"]}]) | {
            "Definition": definition
        }
        (tmp_path / f"task{number:03d}_x.json").write_text(json.dumps(made))
    seeds, refused = read(tmp_path, "task*")
    assert not seeds
    assert [one.reason for one in refused] == ["a task without a Definition"] * 4


@pytest.mark.parametrize("instances", [None, 3, "text", {"a": 1}])
def test_a_task_whose_instances_are_no_list_is_refused(tmp_path: Path, instances: object) -> None:
    (tmp_path / "task001_x.json").write_text(
        json.dumps(super_ni_tasks.task("x", "Misc.", []) | {"Instances": instances})
    )
    _, (refused,) = read(tmp_path, "task*")
    assert refused.reason.startswith("not a task of Super-NaturalInstructions")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"Instances": [{}, {"input": "\\ud800"}]}', "Instances.1.input: holds half of a surrogate pair"),
        ('{"Instances": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deep"),
        ('{"Instances": [], "Instances": []}', "twice"),
        ('{"Instances": [1' + "0" * 5000 + "]}", "5001 digits"),
        ("", "is empty"),
    ],
    ids=lambda given: given[:20],
)
def test_a_task_beyond_the_limits_of_json_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "task001_x.json").write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        read(tmp_path, "task*")
    assert "task001_x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_place_of_a_task_is_named_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "task001_x.json")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read(tmp_path, "task*")


def test_as_many_instances_are_taken_as_wanted_whatever_their_order(folder: Path, tmp_path: Path) -> None:
    (seed,), _ = read(folder, "task005*", instances=3)
    assert len(seed.instances) == 3
    task = json.loads((folder / "task005_open.json").read_text())
    (tmp_path / "task005_open.json").write_text(json.dumps(task | {"Instances": task["Instances"][::-1]}))
    (turned,), _ = read(tmp_path, "task005*", instances=3)
    assert set(turned.instances) == set(seed.instances)


def test_a_few_outputs_again_and_again_are_a_closed_question(folder: Path) -> None:
    assert read(folder, "task090*")[0][0].closed
    assert not read(folder, "task001*")[0][0].closed
    assert is_closed(["yes", "No", "no", "Yes"] * 4)
    assert not is_closed(["yes", "no"])
    assert not is_closed(str(n) for n in range(100))


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_rows_of_alpaca_files_become_tasks_by_their_instruction(tmp_path: Path, kind: str) -> None:
    rows = [
        {"instruction": "Sum up.", "input": "a b", "output": "a"},
        {"instruction": "Sum up. ", "input": "c d", "output": "c"},
        {"instruction": "Greet.", "input": "", "output": "Hello!"},
        {"instruction": "Greet."},
        {"instruction": 3, "output": ""},
    ]
    path = tmp_path / f"a.{kind}"
    path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    pieces = list(instruction_sources.read_examples(str(path), {}))
    assert [isinstance(piece, Refused) for piece in pieces] == [False, False, False, True, True]
    by_task: dict[str, list[Any]] = {}
    for piece in pieces[:3]:
        assert not isinstance(piece, Refused)
        by_task.setdefault(piece.seed.id, []).append(piece)
    seeds = [next(iter(instruction_sources.merge(group, seeds_config(), 0))) for group in by_task.values()]
    assert [len(seed.instances) for seed in seeds if isinstance(seed, Seed)] == [2, 1]
    assert isinstance(seeds[1], Seed)
    assert seeds[1].takes == (NOTHING,)  # it can come first only


def test_an_input_that_is_no_text_is_refused_and_never_spelled_as_python(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    given = [["x", {"y": 1}], {"y": 1}, 3, True, 1.5]
    path.write_text(json.dumps([{"instruction": "Name a fruit.", "input": one, "output": "A fig."} for one in given]))
    found = list(instruction_sources.read_examples(str(path), {}))
    assert [one.reason for one in found if isinstance(one, Refused)] == ["an input that is no text"] * len(given)
    with pytest.raises(UserError, match=r"no row can be used .the last: an input that is no text.; correct the rows"):
        list(instruction_sources.require_pieces(found, str(path)))
    path.write_text(json.dumps([{"instruction": "Name a fruit.", "input": None, "output": "A fig."}]))
    (piece,) = instruction_sources.read_examples(str(path), {})
    assert not isinstance(piece, Refused)
    assert piece.instance.input == ""


@pytest.mark.parametrize(("key", "said"), [("messages", "messages that are no list"), ("instances", "instances that")])
def test_a_row_without_the_key_of_the_others_is_refused(tmp_path: Path, key: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"instruction": "i", key: []}, {"instruction": "i"}]))
    *_, refused = instruction_sources.read_examples(str(path), {})
    assert isinstance(refused, Refused)
    assert said in refused.reason


def test_a_byte_order_mark_blank_lines_and_other_line_separators_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = json.dumps({"instruction": "Name a fruit.", "input": "a\u2028b\x85", "output": "A fig."}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\n\n \r\n{row}\n\n".encode())
    pieces = list(instruction_sources.read_examples(str(path), {}))
    assert [piece.instance.input for piece in pieces if not isinstance(piece, Refused)] == ["a\u2028b"] * 2


def test_single_instructions_of_a_dataset_are_taken_and_longer_chains_are_not(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", "s") as writer:
        writer.add("train", Chain("a", "s", "in", "Do.", (Step("Do.", "out", "Summarization", "t"),)))
        writer.add("train", Chain("b", "s", "in", "Do. and then Go.", (Step("Do.", "x"), Step("Go.", "y"))))
        writer.finish("CC0", {})
    (piece,) = instruction_sources.read_dataset(str(tmp_path / "d" / "train.jsonl"), str(tmp_path / "d"))
    assert not isinstance(piece, Refused)
    assert (piece.seed.licence, piece.seed.category, piece.instance.output) == ("CC0", "Summarization", "out")


def test_names_that_a_source_does_not_have_are_told_with_those_that_it_has(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", "s") as writer:
        for split in ("train", "held_out"):
            writer.add(split, Chain("a", "s", "in", "Do.", (Step("Do.", "out"),)))
        writer.finish("CC0", {})
    with pytest.raises(UserError, match=r"^split: nope: unknown; one of held_out, train \(in .*d\)"):
        instruction_sources.paths(SourceConfig(kind="dataset", path=str(tmp_path / "d"), split="nope", columns={}))
    with pytest.raises(UserError, match=r"^seeds\.sources: zz: unknown; the nearest known names are .* --list"):
        instruction_sources.paths(SourceConfig(kind="procedural", path="lists,zz", split="", columns={}))


def test_operations_have_the_outputs_that_are_computed() -> None:
    found = [
        one
        for one in instruction_sources.read_procedural("lists", seeds_config(languages=[]), 0)
        if isinstance(one, Seed)
    ]
    assert len(found) > 15
    for seed in found:
        words = seed.definition.removesuffix(" Write the result alone, as it is.")
        for instance in seed.instances:
            instruction = words.partition(" as a text. ")[2]
            assert execute(instruction, instance.input) == instance.output


@pytest.mark.parametrize("kind", ["super_ni", "alpaca"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"seeds\.sources.*missing.*check the path"):
        instruction_sources.paths(
            SourceConfig.model_validate({"kind": kind, "path": str(tmp_path / "missing"), "split": "", "columns": {}})
        )


def test_the_real_tasks_are_read(super_ni_folder: Path) -> None:
    seeds, refused = read(super_ni_folder, "task*.json")
    assert (
        len(seeds) + sum(one.reason in ("another language", "a task without a usable instance") for one in refused)
        == 12
    )
    assert all(seed.category and seed.definition and seed.instances for seed in seeds)


def test_a_dataset_without_single_instructions_is_named() -> None:
    with pytest.raises(UserError, match=r"^seeds\.sources: train.jsonl: has no single instruction: "):
        list(instruction_sources.require_pieces([], "train.jsonl"))
