"""The commands of `data_pipeline` on folders in a bucket, and what they refuse to replace."""

import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.dataset import DatasetWriter, read_chains, read_manifest
from coi_jax.common import cli, files, storage
from coi_jax.config.run import load_config
from coi_jax.data import token_cache
from coi_jax.data.task_specs import training_tasks
from data_pipeline import cache
from data_pipeline.audit import __main__ as audit
from data_pipeline.build import __main__ as build
from data_pipeline.build import decisions
from data_pipeline.build.review import chain_outcomes
from data_pipeline.build.review.chain_outcomes import WRITTEN, Outcome
from data_pipeline.build.review.curation import CurationSession
from data_pipeline.procedural import __main__ as procedural
from data_pipeline.release import __main__ as release
from data_pipeline.tasks import cache_writer
from tests.helpers import builds
from tests.helpers.drafts import draft
from tests.helpers.paths import QUICKSTART
from tests.helpers.token_caches import make_chain, write_dataset

SMALL = [
    *("--operations", "lists", "--max_level", "1", "--lengths", "1,2", "--test_lengths", "1,2"),
    *("--train_count", "4", "--validation_count", "1", "--rephrased_count", "1", "--test_count", "1"),
]
ROW = {"instruction": "Name a color.", "input": "grass", "output": "green"}


def run(main: Any, *arguments: object) -> int:
    return cli.run(lambda: main([str(argument) for argument in arguments]))


def test_a_dataset_is_written_audited_and_cached(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = f"{bucket}/data"
    assert run(procedural.main, "--out", data, *SMALL) == 0
    assert run(procedural.main, "--out", tmp_path / "data", *SMALL) == 0
    assert storage.list_files(data) == storage.list_files(tmp_path / "data")
    assert all(files.sha256(f"{data}/{name}") == digest for name, digest in read_manifest(data)["sha256"].items())
    assert read_manifest(data) == read_manifest(tmp_path / "data")
    capsys.readouterr()
    assert run(audit.main, "--data", data, "--vocabulary", "bytes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"] == data
    fields: dict[str, Any] = {
        "arm": "coi1",
        "data.folder": data,
        "data.cache_folder": f"{bucket}/caches",
        "vocabulary.kind": "bytes",
    }
    fields |= {"evaluation.tests": ("proc1_test",)}
    config = load_config(QUICKSTART, fields)
    assert run(cache.main, "--config", QUICKSTART, *(f"--config.{name}={value}" for name, value in fields.items())) == 0
    (opened,) = token_cache.find(config, training_tasks(config)) or []
    assert storage.list_files(opened.folder) == ["cache.json", "examples.array_record", "lengths.npy"]
    assert [opened[index].chain for index in range(4)] == list(read_chains(data, "train", 1))
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "data"}


def test_a_release_is_imported_from_a_bucket_into_a_bucket(bucket: str) -> None:
    files.write_text(f"{bucket}/release/data/train/coi_1.json", json.dumps([ROW]))
    assert run(release.main, "--src", f"{bucket}/release", "--out", f"{bucket}/data") == 0
    assert [chain.outputs for chain in read_chains(f"{bucket}/data", "train")] == [("green",)]


def test_a_build_is_curated_in_a_bucket(bucket: str) -> None:
    found_chains = [Outcome(draft(str(number)), WRITTEN) for number in range(3)]
    chain_outcomes.write_outcomes(f"{bucket}/built.work", found_chains)
    decisions_file = f"{bucket}/built.work/decisions.jsonl"
    session = CurationSession(list(chain_outcomes.read(f"{bucket}/built.work")), decisions_file, "a tester", 4, 0)
    session.decide({"id": session.order[0], "decision": "accept"})
    session.decide({"id": session.order[1], "decision": "reject"})
    session.undo()
    found = decisions.read(decisions_file).rows
    assert {name: row["decision"] for name, row in found.items()} == {session.order[0]: "accept"}


def test_a_build_is_written_into_a_bucket_and_replaced_on_request_alone(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = f"{bucket}/built", f"--work={tmp_path / 'work'}"
    few = {"joins.lengths": "()", "pairs.tasks_per_categories": 1}
    local = builds.flags(tmp_path / "built", None, "--source=procedural:lists", work, **few)
    remote = [f"--out={out}" if given.startswith("--out=") else given for given in local]
    assert run(build.main, *remote) == 0
    assert run(build.main, *local) == 0
    assert storage.list_files(out) == storage.list_files(tmp_path / "built")
    manifest = read_manifest(out)
    assert manifest == read_manifest(tmp_path / "built")
    assert list(read_chains(out, "train", 2)) == list(read_chains(tmp_path / "built", "train", 2)) != []
    assert run(build.main, *remote, "--config.endpoint.concurrency=2") == 0  # the same chains, asked in another way
    capsys.readouterr()
    assert run(build.main, *remote, "--config.variants=()") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        f"error: out: {out}: holds a dataset of other settings (variants); name another folder, or add --overwrite"
    )
    assert read_manifest(out)["sha256"] == manifest["sha256"]
    assert run(build.main, *remote, "--config.variants=()", "--overwrite") == 0
    assert read_manifest(out)["notes"]["config"]["variants"] == []


def test_a_work_folder_in_a_bucket_needs_the_client_of_beam(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--dry_run"], [f"--work={bucket}/work"]):
        assert run(build.main, "--out", f"{bucket}/built", *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        place = f"{bucket}/work" if more[0:1] == [f"--work={bucket}/work"] else f"{bucket}/built.work"
        assert line == (
            f"error: --work: {place}: Beam cannot write there; name a local folder; "
            "for gs://, pip install 'apache-beam[gcp]'"
        )


@pytest.mark.parametrize("name", ["a*b", "a?", "[x", "a[1]"])
def test_a_work_folder_that_beam_would_read_as_a_pattern_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(build.main, "--out", f"{tmp_path}/{name}", "--dry_run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --work: {tmp_path}/{name}.work: holds ")
    assert error.endswith(", which Beam reads as a pattern; name another folder\n")
    assert not list(tmp_path.iterdir())


def test_a_release_is_replaced_by_other_rows_on_request_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, row in {"one": ROW, "other": ROW | {"input": "sky", "output": "blue"}}.items():
        files.write_text(tmp_path / name / "data" / "train" / "coi_1.json", json.dumps([row]))
    out = tmp_path / "data"
    assert [run(release.main, "--src", tmp_path / "one", "--out", out) for _ in range(2)] == [0, 0]
    assert run(release.main, "--src", tmp_path / "other", "--out", out) == 2
    assert f"out: {out}: holds a dataset of other rows; name another folder" in capsys.readouterr().err
    assert [chain.outputs for chain in read_chains(out, "train")] == [("green",)]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other", "data"}
    assert run(release.main, "--src", tmp_path / "other", "--out", out, "--overwrite") == 0
    assert [chain.outputs for chain in read_chains(out, "train")] == [("blue",)]


def write(folder: Path, source: str) -> None:
    with DatasetWriter(folder, source) as writer:
        writer.add("train", make_chain(1, 1))
        writer.finish("none", {})


@pytest.mark.parametrize("command", ["procedural", "release", "build"])
def test_no_command_replaces_the_dataset_of_another(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    write(out, "another job")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    files.write_text(tmp_path / "release" / "data" / "train" / "coi_1.json", json.dumps([ROW]))
    options: dict[str, list[Any]] = {"procedural": SMALL, "release": ["--src", tmp_path / "release"], "build": []}
    mains: dict[str, Any] = {"procedural": procedural.main, "release": release.main, "build": build.main}
    assert run(mains[command], "--out", out, *options[command]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: out: {out}: holds a dataset of source 'another job', and this command writes ")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_command_replaces_its_own_dataset_but_not_what_was_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert run(procedural.main, "--out", out, *SMALL) == 0
    assert run(procedural.main, "--out", out, *SMALL, "--seed", "1", "--overwrite") == 0
    (out / "notes.txt").write_text("precious")
    assert run(procedural.main, "--out", out, *SMALL, "--overwrite") == 2
    assert "holds notes.txt, which is not of the dataset" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "precious"


def test_a_cache_replaces_no_other_folder(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {1: 3})
    fields: dict[str, Any] = {
        "arm": "coi1",
        "data.folder": str(tmp_path / "data"),
        "data.cache_folder": str(tmp_path / "caches"),
    }
    config = load_config(QUICKSTART, fields | {"vocabulary.kind": "bytes"})
    (folder,) = cache_writer.write(config, ["train_length1"])
    (folder / "cache.json").unlink()
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which is not of a cache; move it"):
        cache_writer.write(config, ["train_length1"])
    assert (folder / "notes.txt").read_text() == "precious"
