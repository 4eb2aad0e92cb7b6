"""Weights of the Hugging Face Hub: downloaded from a real server, resumed, and pinned to a commit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from coi_jax import convert
from coi_jax.common import cli, hub
from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder
from coi_jax.config.model import model_section
from coi_jax.families.published_config import from_hf_config
from coi_jax.inference.model import init_untrained_run
from coi_jax.models import build
from coi_jax.runs.run_folder import RunFolder
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.weights.initial_weights import PretrainedWeights
from coi_jax.weights.safetensors_files import TensorFolder
from tests.helpers import hub_server, published_models, tokenizer_folders
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.hub_server import Hub
from tests.helpers.paths import QUICKSTART
from tests.helpers.published_models import tensors

URL = "hf://org/tiny"
FIRST, SECOND = "a" * 40, "b" * 40
BYTES = ("--config", str(QUICKSTART), "--config.vocabulary.kind=bytes")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = published_models.save(tmp_path_factory.mktemp("hub") / "model", "Llama 2")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    return folder


@pytest.fixture
def server(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one model, and an empty cache."""
    with hub_server.serve() as found:
        found.add("org/tiny", model, FIRST)
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        hub.download.cache_clear()
        yield found
    hub.download.cache_clear()


def run(*arguments: object) -> int:
    return cli.run(lambda: convert.main([str(argument) for argument in arguments]))


def test_a_repository_becomes_a_run_that_records_its_commit(server: Hub, model: Path, tmp_path: Path) -> None:
    assert run("--src", URL, "--out", tmp_path / "run", *BYTES) == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back") == 0
    there, back = tensors(model), tensors(tmp_path / "back")
    assert {key: value.tobytes() for key, value in back.items()} == {key: t.tobytes() for key, t in there.items()}
    record = json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))
    assert record["data"]["weights_from"] == f"{URL}@{FIRST}"
    assert not any("pytorch_model.bin" in url for url in server.urls)  # pickled files are never fetched


def test_all_parts_of_a_gguf_model_are_fetched(server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for repository, kept in (("whole", names), ("partial", names[1:])):
        (tmp_path / repository).mkdir()
        for name in kept:
            (tmp_path / repository / name).write_bytes(b"no model")
        server.add(f"org/{repository}", tmp_path / repository, FIRST)
    assert run("--src", f"hf://org/whole/{names[2]}", "--out", tmp_path / "out") == 2
    assert f"{names[0]}: is no whole GGUF file" in capsys.readouterr().err
    assert all(any(name in url for url in server.urls) for name in names)
    assert run("--src", f"hf://org/partial/{names[2]}", "--out", tmp_path / "out") == 2
    assert f"is one of 3 parts, and 1 are missing beside it: {names[0]}; fetch them too" in capsys.readouterr().err


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(
    server: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # bytes that are kept at once
    server.broken_after = 5000
    with pytest.raises(UserError, match=r"hf://org/tiny: cannot be reached .*; run the command again"):
        Folder(URL, "src")
    folder = Folder(URL, "src")
    assert "bytes=5000-" in server.ranges
    for name in TensorFolder(folder).files:
        assert folder.read(name) == (model / name).read_bytes()


def test_a_run_goes_on_with_the_commit_that_it_began_from(server: Hub, model: Path, tmp_path: Path) -> None:
    fields = from_hf_config(json.loads((model / "config.json").read_text(encoding="utf-8"))) | RUN_FIELDS
    network = build(model_section(fields).model_validate(fields), published_models.ROWS)
    first = PretrainedWeights(RunFolder(tmp_path / "run"), network, 0, URL)
    recorded = first.record()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"data": recorded}), encoding="utf-8")
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    (changed / "config.json").unlink()
    server.add("org/tiny", changed, SECOND)  # a push to main, while the commits of before are still there
    hub.download.cache_clear()
    again = PretrainedWeights(RunFolder(tmp_path / "run"), network, 0, URL)
    assert again.pinned == recorded["weights_from"] == f"{URL}@{FIRST}"
    another = PretrainedWeights(RunFolder(tmp_path / "other"), network, 0, URL)
    assert another.pinned == f"{URL}@{SECOND}"


def test_a_baseline_stays_at_the_commit_that_it_was_first_asked_at(server: Hub, model: Path, tmp_path: Path) -> None:
    overrides = {"weights.folder": URL, "arm": "base", "vocabulary.kind": "bytes", "data.template": "plain"}
    for commit in (FIRST, SECOND):
        server.add("org/tiny", model, commit)
        hub.download.cache_clear()
        init_untrained_run(tmp_path / "run", str(QUICKSTART), overrides)
        assert RunFolder(tmp_path / "run").load_config().weights.folder == f"{URL}@{FIRST}"


def test_a_tokenizer_is_fetched_without_the_weights(server: Hub, tmp_path: Path) -> None:
    tokenizer_folders.qwen(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "model.safetensors").write_bytes(bytes(1000))
    server.add("org/tokenizer", tmp_path / "tokenizer")
    found, due = open_tokenizer("hf://org/tokenizer", "chat"), open_tokenizer(str(tmp_path / "tokenizer"), "chat")
    assert found.encode("a b 12") == due.encode("a b 12")
    assert not any("safetensors" in url for url in server.urls)


def test_without_a_network_what_was_downloaded_is_used(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.pin(URL, "src") == f"{URL}@{FIRST}"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    hub.download.cache_clear()
    assert hub.pin(URL, "src") == f"{URL}@{FIRST}"
    assert Folder(f"{URL}@{FIRST}", "src").names()
    with pytest.raises(UserError, match=r"src: hf://org/other: cannot be reached .*name a local folder") as caught:
        hub.download("hf://org/other", "src")
    assert "the Hub does not answer from here, and its cache on this machine does not have" in str(caught.value)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hf://org/none", "no such repository, or a private one"),
        ("hf://org/gated", "is gated; accept its terms on its page"),
        (f"{URL}@v9", "has no such revision"),
        ("hf://tiny", "names no repository; write hf://org/name"),
        ("hf://org/../tiny", "names no repository; write hf://org/name"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    server: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    server.add("org/gated", model)
    server.gated.add("org/gated")
    assert run("--src", url, "--out", tmp_path / "run", *BYTES) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: src: {url}: ")
    assert said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("hf://org/name", ("model", "org/name", None, "")),
        ("hf://org/name@v1.0/", ("model", "org/name", "v1.0", "")),
        ("hf://datasets/org/name@refs%2Fpr%2F1/data/a.parquet", ("dataset", "org/name", "refs/pr/1", "data/a.parquet")),
    ],
)
def test_a_url_has_a_repository_a_revision_and_a_path(url: str, parts: tuple[Any, ...]) -> None:
    assert tuple(hub.parse(url, "src")) == parts
