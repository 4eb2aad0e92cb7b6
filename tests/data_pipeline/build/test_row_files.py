"""Single instructions from files of rows: every kind of file and every layout, or one line that says why not."""

import csv
import datetime
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from coi_jax.common import cli, files, hub
from coi_jax.common.errors import UserError
from data_pipeline.build import __main__ as build
from data_pipeline.build import instruction_sources, row_files
from data_pipeline.build.build_config import SourceConfig
from data_pipeline.build.config_loading import load, parse_columns, parse_source, parse_sources
from data_pipeline.build.instruction_sources import Piece, Refused
from tests.helpers import hub_server
from tests.helpers.hub_server import Hub

ROWS: list[dict[str, Any]] = [
    {"instruction": "Name a fruit.", "input": "", "output": "A fig."},
    {"instruction": "Sum up.", "input": 'a "b",\nc\u2028d', "output": "é"},
    {"instruction": "Sum up.", "input": "7", "output": "7"},
]
TEXTS = [(row["instruction"], row["input"], row["output"]) for row in ROWS]
Write = Callable[[Path], Path]


def write_json(folder: Path, rows: Any = ROWS) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def write_csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_tsv(folder: Path) -> Path:
    path = folder / "rows.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_parquet(folder: Path) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


def write_saved(folder: Path) -> Path:
    """One split as `datasets.save_to_disk` writes it."""
    saved = folder / "saved"
    saved.mkdir()
    names = [f"data-{number:05}-of-00002.arrow" for number in range(2)]
    for name, rows in zip(names, (ROWS[:2], ROWS[2:]), strict=True):
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.OSFile(str(saved / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    files.write_json(saved / "state.json", {"_data_files": [{"filename": name} for name in names], "_split": "train"})
    files.write_json(saved / "dataset_info.json", {"features": {}})
    return saved


def write_saved_splits(folder: Path) -> Path:
    splits = folder / "splits"
    splits.mkdir()
    write_saved(splits).rename(splits / "train")
    (splits / "test").mkdir()
    files.write_json(splits / "dataset_dict.json", {"splits": ["train", "test"]})
    return splits


def write_shards(folder: Path) -> Path:
    """Files as most datasets of the Hub have them, with a test set beside."""
    data = folder / "sharded" / "data"
    data.mkdir(parents=True)
    for number, rows in enumerate((ROWS[:1], ROWS[1:])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / f"train-{number:05}-of-00002.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), data / "test-00000-of-00001.parquet")
    (folder / "sharded" / "dataset_infos.json").write_text("{}", encoding="utf-8")
    return folder / "sharded"


WRITERS: tuple[Write, ...] = (
    write_json,
    write_jsonl,
    write_csv,
    write_tsv,
    write_parquet,
    write_saved,
    write_saved_splits,
    write_shards,
)


def test_values_that_json_has_no_kind_for_are_text_or_null_and_never_pythons_own_spelling(tmp_path: Path) -> None:
    row = {"instruction": b"Name the day.", "input": datetime.date(2024, 5, 17), "output": math.nan}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    [found] = row_files.read_rows(str(tmp_path / "rows.parquet"))
    assert found == {"instruction": "Name the day.", "input": "2024-05-17", "output": None}
    for field in ("input", "output"):
        rows = [{"instruction": "Sum up.", "input": "a", "output": "b"} | {field: b"\xff"}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
        taken, (refused,) = read(tmp_path / "rows.parquet")
        assert not taken
        assert refused.row[field] == {"bytes": 1}


def read(source: Path | str, columns: dict[str, str] | None = None) -> tuple[list[tuple[str, str, str]], list[Refused]]:
    """The texts of all examples of a source, and the rows that are refused."""
    found = [
        one
        for path in row_files.find_files(str(source))
        for one in instruction_sources.read_examples(path, columns or {})
    ]
    pieces = [one for one in found if isinstance(one, Piece)]
    texts = [(one.seed.definition, one.instance.input, one.instance.output) for one in pieces]
    return texts, [one for one in found if isinstance(one, Refused)]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_same_rows_are_read_from_every_kind_of_file(tmp_path: Path, write: Write) -> None:
    assert read(write(tmp_path)) == (TEXTS, [])


def test_a_bucket_is_read_too(tmp_path: Path, bucket: str) -> None:
    from etils import epath

    for write in (write_parquet, write_csv):
        path = write(tmp_path)
        epath.Path(f"{bucket}/{path.name}").write_bytes(path.read_bytes())
        assert read(f"{bucket}/{path.name}") == (TEXTS, [])


LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "dolly": [{"instruction": "Sum up.", "context": "a", "response": "b", "category": "closed_qa"}],
    "self_instruct": [
        {"id": "s", "instruction": "Sum up.", "is_classification": False, "instances": [{"input": "a", "output": "b"}]}
    ],
    "sharegpt": [
        {
            "id": "x",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Sum up."},
                {"from": "gpt", "value": "b"},
                {"from": "human", "value": "And then?"},
            ],
        }
    ],
    "conversations of roles": [
        {"conversations": [{"role": "user", "content": "Sum up."}, {"role": "assistant", "content": "b"}]}
    ],
    "natural_instructions": [{"task_name": "t", "definition": "Sum up.", "inputs": "a", "targets": "b"}],
    "messages": [{"messages": [{"role": "user", "content": "Sum up."}, {"role": "assistant", "content": "b"}]}],
    "flan": [{"inputs": "Sum up.", "targets": "b", "task_source": "P3", "template_type": "zs_noopt"}],
    "prompts": [{"prompt": "Sum up.", "completion": "b"}],
}
WITH_INPUT = ("dolly", "self_instruct", "natural_instructions")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_layouts_are_recognized_by_their_keys(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        write_json(tmp_path, LAYOUTS[name])
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(LAYOUTS[name]), path)
    assert read(path) == ([("Sum up.", "a" if name in WITH_INPUT else "", "b")], [])


def test_columns_may_have_any_names(tmp_path: Path) -> None:
    path = write_json(tmp_path, [{"q": "Sum up.", "text": "a", "a": "b"}, {"q": "Greet.", "text": None, "a": "Hi."}])
    columns = parse_columns("instruction=q, input=text,output=a")
    assert read(path, columns)[0] == [("Sum up.", "a", "b"), ("Greet.", "", "Hi.")]
    assert read(path, parse_columns("output=a,instruction=q"))[0] == [("Sum up.", "", "b"), ("Greet.", "", "Hi.")]
    with pytest.raises(UserError, match=r"has no column question; its columns are q, text, a"):
        read(path, {"instruction": "question", "output": "a"})


def test_rows_that_are_no_example_are_refused_whole(tmp_path: Path) -> None:
    rows = [
        {"id": 1},
        {"instruction": "Sum up.", "context": "a", "response": "b"},
        {"instruction": "Sum up.", "context": ["a"], "response": "b"},
        {"instruction": " ", "context": "a", "response": "b"},
        "text",
    ]
    found, refused = read(write_json(tmp_path, rows))
    assert found == [("Sum up.", "a", "b")]
    assert [one.row for one in refused] == [rows[0], *rows[2:]]
    assert [one.reason for one in refused][:2] == [instruction_sources.UNKNOWN_KEYS, "an input that is no text"]


@pytest.mark.parametrize(
    "turns",
    [
        "text",
        ["text"],
        [],
        [{"from": "gpt", "value": "b"}, {"from": "human", "value": "a"}],
        [{"from": "human", "value": "a"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": [{"type": "image"}]}],
    ],
    ids=str,
)
def test_a_conversation_without_an_answer_is_refused(tmp_path: Path, turns: Any) -> None:
    found, refused = read(write_json(tmp_path, [{"conversations": turns}]))
    assert not found
    assert len(refused) == 1


def test_values_of_arrow_that_json_has_not_are_refused_as_texts(tmp_path: Path) -> None:
    rows = [{"instruction": "Sum up.", "output": "b", "input": None, "score": float("nan"), "raw": b"\xff"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [("Sum up.", "", "b")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([rows[0] | {"output": ""}]), tmp_path / "b.parquet")
    _, (refused,) = read(tmp_path / "b.parquet")
    assert json.loads(json.dumps(refused.row, allow_nan=False))["raw"] == {"bytes": 1}


def damaged(folder: Path, how: str) -> Path:
    """A source that cannot be read."""
    if how in ("a parquet cut short", "an arrow cut short"):
        path = write_parquet(folder) if "parquet" in how else next(iter(write_saved(folder).glob("*.arrow")))
        path.write_bytes(path.read_bytes()[:-150])
        return path
    texts = {
        "another parquet": ("a.parquet", "PAR1 not"),
        "a short csv row": ("a.csv", "instruction,output\na,b\nc\n"),
        "a csv column twice": ("a.csv", "instruction,instruction\na,b\n"),
        "carriage returns": ("a.csv", "instruction,output\ra,b\r"),
        "a blank header": ("a.csv", "\n\ninstruction,output\na,b\n"),
        "an open quote": ("a.csv", 'instruction,output\na,"b\n'),
        "no utf-8": ("a.csv", "instruction,output\na,\udcff\n"),
        "another kind": ("a.txt", "instruction,output\n"),
        "no layout": ("a.json", '[{"question": "a", "answer": "b"}]'),
        "an empty array": ("a.json", "[]"),
        "arrays for rows": ("a.json", "[[1], [2]]"),
        "null for a row": ("a.json", "[null]"),
        "no instances": ("a.json", '[{"instruction": "Sum up.", "instances": []}]'),
        "an empty csv": ("a.csv", ""),
        "an empty jsonl": ("a.jsonl", "\n"),
        "a header alone": ("a.csv", "instruction,output\n"),
        "semicolons": ("a.csv", "instruction;output\na;b\n"),
        "tabs": ("a.csv", "instruction\toutput\na\tb\n"),
        "a number for a row": ("a.jsonl", "1\n"),
        "two files": ("two/b.json", "[]"),
        "two kinds": ("kinds/train.json", "[]"),
        "no files": ("none/a.md", "#"),
        "no train": ("splits/dataset_dict.json", '{"splits": ["test"]}'),
        "a path out": ("saved/state.json", '{"_data_files": [{"filename": "../../x.arrow"}]}'),
    }
    name, text = texts[how]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    if how in ("two files", "two kinds"):
        (path.parent / ("c.json" if how == "two files" else "train.csv")).write_text("[]")
    return path if path.parent == folder else path.parent


def read_all(source: str) -> None:
    for path in row_files.find_files(source):
        list(instruction_sources.require_pieces(instruction_sources.read_examples(path, {}), path))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a parquet cut short", "cannot be read (.*); fetch it again"),
        ("an arrow cut short", "cannot be read (.*); fetch it again"),
        ("another parquet", "cannot be read (.*); fetch it again"),
        ("a short csv row", "a.csv:3: has 1 value, where its header has 2"),
        ("a csv column twice", "has a column twice"),
        ("an open quote", "is not CSV"),
        ("carriage returns", "a.csv:1: is not CSV (lines end in carriage returns); end them with line feeds"),
        ("a blank header", "a.csv:1: is blank, where the names of the columns are due; remove the line"),
        ("no utf-8", "a.csv:2: byte 2 is not UTF-8"),
        ("another kind", "is no file of rows; name one that ends with .json, .jsonl, .csv"),
        ("no layout", "keys question, answer, which is no layout .* --columns instruction=KEY,input=KEY,output=KEY"),
        ("an empty array", "a.json: has no rows; name a file that has some"),
        (
            "no instances",
            "(the last: an instruction without instances); correct the rows, which have the keys instruct",
        ),
        ("arrays for rows", "a.json: has a row that is an array where an object is expected; correct the row"),
        ("null for a row", "a.json: has a row that is null where an object is expected; correct the row"),
        ("an empty csv", "a.csv: has no rows; name a file that has some"),
        ("an empty jsonl", "a.jsonl: has no rows; name a file that has some"),
        ("a header alone", "a.csv: has no rows; name a file that has some"),
        ("semicolons", "a.csv: has one column, 'instruction;output': its values seem to be separated by ';'; write"),
        ("tabs", "has one column, 'instruction\\toutput': its values seem to be separated by tabs; name it *.tsv"),
        ("a number for a row", "a.jsonl:1: is a number where a JSON object is expected; correct the line"),
        ("two files", "has several files (b.json, c.json); name one of them"),
        ("two kinds", "has several files (train.csv, train.json); name one of them"),
        ("no files", "has no file that ends with .json, .jsonl"),
        ("no train", "has the splits test; name the folder of one"),
        ("a path out", "names no Arrow files"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_line(tmp_path: Path, how: str, said: str) -> None:
    source = damaged(tmp_path, how)
    with pytest.raises(UserError) as caught:
        read_all(str(source))
    first, _, last = said.partition(".*")
    assert first in str(caught.value)
    assert last in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_named_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read(tmp_path / "a.parquet")
    source = f"--source=rows:{tmp_path / 'a.parquet'}"
    with pytest.raises(UserError, match=r"^seeds\.sources: .*a\.parquet: is a pipe or a device"):
        build.main(["--config=configs/build/super_ni.py", source, f"--out={tmp_path / 'out'}", "--dry_run"])


def test_a_file_of_unknown_keys_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "a"}\n' * (instruction_sources.ROWS_TRIED + 1) + "no JSON\n")
    with pytest.raises(UserError, match="has rows with the keys question"):
        read(path)


def test_the_command_line_names_kind_path_and_columns() -> None:
    columns = {"instruction": "q", "output": "a"}
    for text in ("rows:hf://datasets/org/name", "alpaca:rows.json"):
        source = SourceConfig.model_validate(parse_source(text, columns))
        assert (f"{source.kind}:{source.path}", source.columns) == (text, columns)
    assert parse_source("dataset:d:train", columns) == {"kind": "dataset", "path": "d", "split": "train", "columns": {}}
    with pytest.raises(UserError, match=r"^--columns: '': write instruction=NAME"):
        parse_sources(["rows:a.csv"], "")
    for wrong in ("instruction=q", "instruction=q,output=a,context=c", "q,a", "instruction=q,output=a,output=b"):
        with pytest.raises(UserError, match=r"--columns: .*write instruction=NAME,input=NAME,output=NAME"):
            parse_columns(wrong)
    with pytest.raises(UserError, match=r"^--columns: .*: names a column twice; each text needs a column of its own$"):
        parse_columns("instruction=question,output=question")
    with pytest.raises(UserError, match=r"^--columns: .*: belongs to a source of rows; give --source rows:PATH too"):
        parse_sources(["dataset:d:train"], "instruction=q,output=a")
    rows, dataset = parse_sources(["rows:a.csv", "dataset:d:train"], "instruction=q,output=a")
    assert (rows["columns"], dataset["columns"]) == (columns, {})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("my/questions.csv", "names no kind; write KIND:PATH, as rows:my/questions.csv"),
        ("hf://datasets/org/name", "names no kind; write KIND:PATH, as rows:hf://datasets/org/name"),
        ("row:a.csv", "row is unknown; did you mean 'rows'?"),
        ("rows:", "names no path; write rows:PATH"),
        ("dataset:data/lists", "names no split; write dataset:DIR:SPLIT, as dataset:data/lists:train"),
        ("dataset:gs://bucket/lists", "names no split; write dataset:DIR:SPLIT"),
    ],
)
def test_a_source_that_is_written_otherwise_is_refused_with_its_spelling(source: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_source(source, {})
    assert str(caught.value).startswith(f"--source: {source}: {said}")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one dataset, and an empty cache."""
    with hub_server.serve() as found:
        found.add("datasets/org/rows", write_shards(tmp_path), "c" * 40)
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        hub.download.cache_clear()
        yield found
    hub.download.cache_clear()


def test_a_dataset_of_the_hub_is_read_at_its_commit(server: Hub) -> None:
    source = row_files.pinned("hf://datasets/org/rows")
    assert source == f"hf://datasets/org/rows@{'c' * 40}"
    assert read(source) == (TEXTS, [])
    assert read("hf://datasets/org/rows/data/train-00000-of-00002.parquet") == (TEXTS[:1], [])
    with pytest.raises(UserError, match=r"seeds\.sources: hf://datasets/org/none: no such repository"):
        row_files.find_files("hf://datasets/org/none")
    for find in (row_files.find_files, row_files.pinned):
        with pytest.raises(
            UserError, match=r"hf://org/rows/a: names a model; for a dataset, write hf://datasets/org/r"
        ):
            find("hf://org/rows/a")


def test_a_config_names_the_commit_of_a_dataset(server: Hub) -> None:
    sources = (parse_source("rows:hf://datasets/org/rows", {}),)
    config = load("configs/build/super_ni.py", {"seeds.sources": sources}, needs_model=False)
    assert config.seeds.sources[0].path == f"hf://datasets/org/rows@{'c' * 40}"


def test_the_command_says_what_to_give_for_keys_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--config=configs/build/super_ni.py", f"--out={tmp_path}/built", "--dry_run")

    def run(*arguments: str) -> str:
        assert cli.run(lambda: build.main([*common, *arguments])) == 2
        return capsys.readouterr().err.splitlines()[-1]

    source = write_json(tmp_path, [{"question": "a", "answer": "b"}])
    assert "keys question, answer, which is no layout that is known; say which they are: --columns" in run(
        f"--source=rows:{source}"
    )
    assert "give --source rows:PATH too" in run("--columns=instruction=question,output=answer")
