"""The command: a real process, its signals and its mistakes."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from coi_jax.common import cli
from coi_jax.serve import main
from tests.helpers.paths import ROOT
from tests.helpers.trained_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


def complain(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.run(lambda: main(options)) == cli.EXIT_USER_ERROR
    return capsys.readouterr().err


@pytest.mark.parametrize("key", ["a b", "schlüssel", "a\nb"])
def test_a_key_that_no_client_could_send_is_refused_and_not_shown(
    run: Path, key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COI_SERVE_KEY", key)
    said = complain(capsys, "--workdir", str(run), "--port", "0")
    assert "COI_SERVE_KEY" in said
    assert key not in said


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no name of a host" in complain(capsys, "--workdir", str(run), "--allowed_host", "http://x/")
    assert "one from 1 to 65535" in complain(capsys, "--workdir", str(run), "--port", "99999")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = complain(capsys, "--workdir", str(run), "--port", str(taken.getsockname()[1]))
    assert said.count("\n") == 1
    assert "in use" in said
    assert "no such file" in complain(capsys, "--workdir", str(tmp_path), "--port", "0")
    twice = complain(capsys, "--workdir", str(run), "--workdir", f"{run}/", "--port", "0")
    assert "another model is named run" in twice
    beams = {"kind": "beam", "beams": 2, "length_penalty": 1.0, "early_stopping": False}
    settings = [f"--config.evaluation.decoding.{name}={value}" for name, value in beams.items()]
    said = complain(capsys, "--workdir", str(run), "--port", "0", *settings)
    assert "serve it with greedy or sample" in said
    assert "name an address" in complain(capsys, "--workdir", str(run), "--host", "no such host", "--port", "0")


def test_a_signal_while_a_model_is_loaded_ends_it_at_once(run: Path) -> None:
    with serving(run) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_an_address_of_a_network_without_a_key_is_warned_of(run: Path) -> None:
    with serving(run, "--host", "0.0.0.0") as (process, _):
        process.terminate()
        assert "COI_SERVE_KEY is not set" in process.communicate(timeout=60)[1]


@contextmanager
def serving(run: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", openai.OpenAI]]:
    command = [sys.executable, "-m", "coi_jax.serve", "--workdir", str(run), "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"http://\S+", process.stdout.readline())
            assert match
            # A model that is being loaded says so with a status that the client asks again after.
            yield process, openai.OpenAI(base_url=f"{match[0]}v1", api_key="none", max_retries=20)
        finally:
            process.kill()


def test_a_signal_ends_it_after_what_is_in_flight(run: Path) -> None:
    with serving(run, "--max_new_tokens", "3000", "--slots", "2") as (process, client):
        settings: dict[str, Any] = {"max_tokens": 3000, "temperature": 0, "stream_options": {"include_usage": True}}
        parts = client.completions.create(model="run", prompt="ab", stream=True, **settings)
        next(parts)
        process.send_signal(signal.SIGTERM)
        *_, last = parts
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert last.usage.completion_tokens == 3000
