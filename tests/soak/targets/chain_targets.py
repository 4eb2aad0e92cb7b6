"""Readers of chains: texts of steps, rows, dataset folders, the release, other benchmarks, single instructions."""

import functools
import hashlib
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from coi_jax.chains import dataset
from coi_jax.chains.chain import Chain, is_well_formed, label_starts, parse, render, respell_labels
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common import files
from coi_jax.data.demonstrations import read_demonstrations
from coi_jax.evaluation.instruction_checks import followed
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline import benchmarks
from data_pipeline.audit import measures
from data_pipeline.build import decisions, instruction_sources
from data_pipeline.build.build_config import SeedsConfig
from data_pipeline.json_array import read_array
from data_pipeline.release.importer import import_release
from data_pipeline.release.release_files import FILES
from data_pipeline.release.row_reading import NotAChain, Survey, read
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import TEXTS, mutate_bytes, mutate_json, mutate_json_text, mutate_lines, mutate_text
from tests.helpers.token_caches import make_chain
from tests.soak.targets.scratch import read_file, read_files

ANSWERS = (
    "Task 1 output and task 2 input: A\nTask 2 output: B",
    "task1 output: a b Task2 output: c",
    "**Task 1 output and task 2 input:** x\n### Task 2 output and task 3 input:\ny\n\n- Task 3 output: z",
    "> 1. `Task 01 output`: \\Task 1 output: q",
    "no label at all",
)
ROW = make_chain(3, 3).row() | {"published_targets": "t", "details": {"kwargs": [1], "x": None}}
RELEASE = [
    {
        "instruction": "Sort it and then reverse it.",
        "input": "c a",
        "output": "Task 1 output and task 2 input: a c Task 2 output: c a",
    },
    {"instruction": "Do and then do and then end", "input": "", "output": "Task1 output: x\nTask2 output: y"},
    {
        "instruction": "Fused.",
        "input": "c a",
        "output": "Task 1 output: a c\nTask 2 output: c a",
        "summarized_coi": "Both.",
    },
]
SUMMARY = [{"instruction": "A and then B", "input": "i", "output": "o", "eng_output": "e"}]
BENCHMARKS: dict[str, Any] = {
    "sifo": [
        {"id": 1, "context": "c", "instruction_1": "a", "answer_1": "x", "instruction_2": "b", "answer_2": ["y", "z"]}
    ],
    "seqeval": [{"seq_instruction": "First a, then b.", "input": "x"}],
    "complexbench": [
        {"main_id": 4, "instruction": "i", "instruction_en": "e", "scoring_questions": [{"point_id": 0, "dep": []}]}
    ],
    "ifeval": [
        {
            "key": 1000,
            "prompt": "Write.",
            "instruction_id_list": ["keywords:existence", "length_constraints:nth_paragraph_first_word"],
            "kwargs": [
                {"keywords": ["a", "b"]},
                {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "so"},
            ],
        },
        {
            "key": 1001,
            "prompt": "Write.",
            "instruction_id_list": ["keywords:letter_frequency", "detectable_format:multiple_sections"],
            "kwargs": [
                {"letter": "q", "let_relation": "at least", "let_frequency": 2},
                {"section_spliter": "PART", "num_sections": 3},
            ],
        },
    ],
}
EXAMPLES = [
    [{"instruction": "i", "input": "x", "output": "o"}],
    [{"instruction": "i", "context": "x", "response": "o"}],
    [{"instruction": "i", "instances": [{"input": "a", "output": "b"}]}],
    [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}],
    [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}],
]
SUPER_NI = {
    "Definition": ["Sort."],
    "Categories": ["Text Modification"],
    "Source": ["synthetic"],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Instruction_language": ["English"],
    "Instance License": ["MIT"],
    "Instances": [{"id": "t-1", "input": "b a", "output": ["a b"]}, {"id": "t-2", "input": "c", "output": ["c"]}],
}
DECISIONS = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"id": "a", "decision": "accept", "by": "me"},
        {"id": "b", "decision": "edit", "steps": [["i", "o"]], "by": "me"},
        {"id": "a", "decision": "undo"},
    )
)


def _text(rng: random.Random) -> str:
    return mutate_text(rng.choice(ANSWERS), rng, ANSWERS)


def _parse(text: str) -> None:
    """Read a text in all ways, and hold what `parse` promises of `render`."""
    outputs = parse(text)
    assert parse(render(outputs)) == outputs
    is_well_formed(text, len(outputs))
    label_starts(text)
    respell_labels(text, ANSWERS[0])


@functools.cache
def _dataset() -> dict[str, bytes]:
    """Return the files of a small dataset folder, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with DatasetWriter(folder, "procedural") as writer:
            for number in range(3):
                writer.add("train", make_chain(number, 1 + number % 2))
            writer.add("test", make_chain(9, 2))
            writer.finish("none", {"seed": 0})
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _damaged_dataset(rng: random.Random) -> dict[str, bytes]:
    """Return a dataset folder with damaged rows, whose manifest is right about their hash, or with another manifest."""
    found = dict(_dataset())
    if rng.random() < 0.5:
        found["manifest.json"] = mutate_json_text(found["manifest.json"].decode(), rng)
        return found
    found["train.jsonl"] = mutate_lines(found["train.jsonl"].decode(), rng)
    manifest = json.loads(found["manifest.json"])
    manifest["sha256"]["train.jsonl"] = hashlib.sha256(found["train.jsonl"]).hexdigest()
    return found | {"manifest.json": json.dumps(manifest).encode()}


def _read_dataset(folder: Path) -> None:
    for _ in dataset.read_chains(folder, "train"):
        pass
    measures.audit(folder, ByteVocabulary(), "plain", (16,))


def _release(rng: random.Random) -> dict[str, bytes]:
    parts = {
        "train/coi_2.json": RELEASE[:2],
        "train/summarized_coi_2.json": RELEASE[2:],
        "test/coi2_test.json": RELEASE[:1],
    }
    damaged = rng.choice([*parts])
    return {
        f"data/{name}": mutate_json_text(json.dumps(rows), rng) if name == damaged else json.dumps(rows).encode()
        for name, rows in parts.items()
    }


def _read_release_row(given: tuple[Any, int]) -> None:
    row, number = given
    survey = Survey()
    for each in (*RELEASE, row):
        survey.learn(each, 0)
    survey.settle()
    read(row, FILES[number], 0, survey)


def _release_row(rng: random.Random) -> tuple[Any, int]:
    rows = mutate_json(json.loads(json.dumps(rng.choice((RELEASE, SUMMARY)))), rng)
    row = rows[0] if isinstance(rows, list) and rows else rows
    return json.loads(json.dumps(row)), rng.randrange(len(FILES))


def _benchmark(rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice([*BENCHMARKS])
    return name, mutate_json_text(json.dumps(BENCHMARKS[name]), rng)


def _read_benchmark(given: tuple[str, bytes]) -> None:
    """Import the rows of a benchmark, and score an answer to each."""
    name, data = given

    def read_folder(folder: Path) -> None:
        with DatasetWriter(folder / "out", benchmarks.SOURCE) as writer:
            benchmarks.read(benchmarks.BENCHMARKS[name], str(folder / "rows.json"), writer)
            writer.finish("none", {})
        for chain in dataset.read_chains(folder / "out", name):
            details = chain.details or {}
            if "instruction_id_list" in details:
                followed("An answer.\n\n* so", details["instruction_id_list"], details["kwargs"], loose=True)

    read_files({"rows.json": data}, read_folder)


def _examples(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps(rng.choice(EXAMPLES)), rng)


def _read_examples(path: Path) -> None:
    for _ in instruction_sources.read_examples(str(path), {}):
        pass


def _super_ni(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps(SUPER_NI), rng)


SEEDS = SeedsConfig.model_construct(languages=("English",), longest_words=50, instances=2)


def _read_super_ni(path: Path) -> None:
    for _ in instruction_sources.read_super_ni(str(path), SEEDS, 0):
        pass


def _csv(rng: random.Random) -> bytes:
    text = 'instruction,input,output\n"a ""b""",,c\nd,"e\nf",g\n'
    return mutate_text(text, rng).encode("utf-8", "surrogatepass")


@functools.cache
def _parquet() -> bytes:
    table = pyarrow.table({"instruction": ["i", "j"], "input": [None, "x"], "output": ["o", "p"], "n": [[1], [2, 3]]})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def _damaged_parquet(rng: random.Random) -> bytes:
    return mutate_bytes(_parquet(), rng)


def _array(rng: random.Random) -> bytes:
    return mutate_json_text(json.dumps([ROW, *RELEASE, 1.5, None, [[]], rng.choice(TEXTS)]), rng)


def _read_array(path: Path) -> None:
    for _ in read_array(path):
        pass


TARGETS: dict[str, Target] = {
    "chain_text": Target(_text, _parse),
    "chain_row": Target(
        lambda rng: mutate_json_text(json.dumps(ROW), rng),
        read_file("row.jsonl", lambda path: [Chain.from_row(row) for row in files.read_jsonl(path)]),
    ),
    "dataset_folder": Target(_damaged_dataset, lambda given: read_files(given, _read_dataset)),
    "json_array": Target(_array, read_file("rows.json", _read_array)),
    "release_row": Target(_release_row, _read_release_row, (NotAChain,)),
    "release_folder": Target(
        _release, lambda given: read_files(given, lambda folder: import_release(folder, folder / "out"))
    ),
    "benchmark_rows": Target(_benchmark, _read_benchmark),
    "instruction_rows": Target(_examples, read_file("rows.json", _read_examples)),
    "instruction_csv": Target(_csv, read_file("rows.csv", _read_examples)),
    "instruction_parquet": Target(_damaged_parquet, read_file("rows.parquet", _read_examples)),
    "super_ni_task": Target(_super_ni, read_file("task1_x.json", _read_super_ni)),
    "decisions": Target(lambda rng: mutate_lines(DECISIONS, rng), read_file("decisions.jsonl", decisions.read)),
    "demonstrations": Target(
        lambda rng: mutate_lines(json.dumps(make_chain(1, 2).row()) + "\n", rng),
        read_file("shown.jsonl", lambda path: read_demonstrations(str(path), 1)),
    ),
}
