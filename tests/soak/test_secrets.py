"""Keys of the environment reach the services that they are for, and nothing else: no file, log, page, child or host."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coi_jax.common import child_processes, files
from coi_jax.common.errors import UserError
from coi_jax.data import token_cache
from coi_jax.llm.endpoint import Endpoint
from coi_jax.llm.failures import Busy, Declined
from coi_jax.tokenizers import chat_template
from coi_jax.tokenizers.chat_template import ChatTemplate
from launch.sweep.devices import DeviceShare
from launch.sweep.worker_process import WorkerProcess
from tests.helpers import llm_clients, super_ni_tasks
from tests.helpers.builds import endpoint, flags
from tests.helpers.paths import CONFIGS, ROOT
from tests.helpers.scripted_server import completion, serving
from tests.soak.targets.record_targets import TEST, with_texts

SECRETS = {
    "OPENAI_API_KEY": "canary-of-the-endpoint",
    "WANDB_API_KEY": "canary" * 6 + "abcd",  # 40 characters, as W&B asks for
    "HF_TOKEN": "hf_canary-of-the-hub",
    "COI_SERVE_KEY": "canary-of-the-server",
    "MLFLOW_TRACKING_PASSWORD": "canary-of-mlflow",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-bucket",
    "SOME_OTHER_TOKEN": "canary-of-somebody",
}
CANARY = b"canary"
OFFLINE = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "COI_LLM_MODEL": "m",
}
VERDICT = '{"reason": "r", "better": "tie"}'


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("OPENAI_API_KEY", True),
        ("GITHUB_TOKEN", True),
        ("db_password", True),
        ("SSH_AUTH_SOCK", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True),
        ("PATH", False),
        ("KEYBOARD", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("OPENAI_BASE_URL", False),
    ],
)
def test_secrets_are_known_by_the_names_of_their_variables(name: str, is_secret: bool) -> None:
    assert (name not in child_processes.without_secrets({name: "x"})) == is_secret
    assert name in child_processes.without_secrets({name: "x"}, (name[:4],))


def test_what_renders_templates_that_strangers_wrote_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in SECRETS.items():
        monkeypatch.setenv(name, text)
    chat_template._WORKER.close()
    assert ChatTemplate("{{ 1 + 1 }}", {}, "x").render([], add_generation_prompt=False) == "2"
    process = chat_template._WORKER._process
    assert process is not None
    variables = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"PATH=" in variables
    assert CANARY not in variables


@pytest.mark.parametrize(
    ("variables", "needed"),
    [
        (token_cache._child_environment, {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY"}),
        (
            WorkerProcess(DeviceShare(1))._environment,
            {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"},
        ),
    ],
)
def test_children_get_the_secrets_that_they_need(
    monkeypatch: pytest.MonkeyPatch, variables: Callable[[], dict[str, str]], needed: set[str]
) -> None:
    for name, text in SECRETS.items():
        monkeypatch.setenv(name, text)
    assert {name for name, text in variables().items() if "canary" in text} == needed


class Watch:
    """Notes which secrets the descendants of a process have in their environment, and in their command lines."""

    def __init__(self, root: int) -> None:
        self._root, self._done = root, threading.Event()
        self.seen: dict[str, set[str]] = {}
        self.told: list[str] = []  # command lines with a secret
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for process in _descendants(self._root):
                with contextlib.suppress(OSError):  # it has ended
                    command = (process / "cmdline").read_bytes()
                    self.told += [command.decode()] if CANARY in command else []
                    variables = (process / "environ").read_bytes().split(b"\0")
                    names = {text.split(b"=")[0].decode() for text in variables if CANARY in text}
                    self.seen.setdefault(command.replace(b"\0", b" ").decode(), set()).update(names)

    def stop(self) -> dict[str, set[str]]:
        self._done.set()
        self._thread.join()
        assert not self.told
        return self.seen


def _descendants(root: int) -> list[Path]:
    children: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(process.name))
    found, left = [], [root]
    while left:
        left = [child for parent in left for child in children.get(parent, [])]
        found += left
    return [Path("/proc") / str(each) for each in found]


def command(folder: Path, *argv: str, status: int = 0) -> tuple[str, dict[str, set[str]]]:
    """Run a command with all secrets; return what it printed, and the secrets of its children by their commands."""
    more = {"MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(), "WANDB_DIR": str(folder), "TMPDIR": str(folder)}
    environment = os.environ | SECRETS | OFFLINE | more
    with subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        watch = Watch(process.pid)
        said, _ = process.communicate(timeout=600)
    seen = watch.stop()
    assert process.returncode == status, said
    assert "canary" not in said
    return said, seen


def check_files(folder: Path) -> int:
    """Look for secrets in every file below a folder; return how many files there are."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        assert CANARY not in path.read_bytes(), path
    return len(paths)


@pytest.mark.slow
def test_a_judge_tells_nobody_its_key(tmp_path: Path) -> None:
    for name in "ab":
        for file, text in with_texts("some words").items():
            files.write_text(tmp_path / name / file, text.replace("some words", "other words") if name == "b" else text)
    for run in "ab":
        path = tmp_path / run / f"eval/{TEST}/predictions.jsonl"
        rows = [row | {"instruction": "i", "input": "x", "target": "t"} for row in files.read_jsonl(path)]
        rows = [row | {"id": str(number), "prediction": f"{run}{number}"} for number, row in enumerate(rows)]
        files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / run / f"eval/{TEST}/results.json").unlink()
    with serving(lambda request, number: completion(VERDICT)) as served:
        options = [f"--config={CONFIGS / 'judge/pairwise.py'}", f"--config.store={tmp_path / 'replies.sqlite'}"]
        options += [f"--a={tmp_path / 'a'}", f"--b={tmp_path / 'b'}", f"--task={TEST}"]
        _, seen = command(tmp_path, "coi_jax.judge", *options, f"--config.endpoint.base_url={served.url}")
        assert served.requests
    assert not any(seen.values()), seen
    assert check_files(tmp_path) > 10


@pytest.mark.slow
def test_a_build_tells_nobody_its_key(tmp_path: Path) -> None:
    """All replies are of another form, so that errors and rejected rows are written too."""
    tasks = super_ni_tasks.write(tmp_path / "super_ni")
    with serving(lambda request, number: completion(VERDICT)) as served:
        argv = flags(tmp_path / "built", tasks, **endpoint(served.url))
        said, seen = command(tmp_path, "data_pipeline.build", *argv, status=2)
        assert served.requests, said
    assert not any("git" in each or "template_worker" in each for each, names in seen.items() if names), seen
    assert check_files(tmp_path / "super_ni") + check_files(tmp_path) > 5


@pytest.mark.slow
def test_a_training_with_trackers_tells_nobody_their_keys(tmp_path: Path) -> None:
    overrides = {"logging.wandb_project": "p", "logging.mlflow_experiment": "e", "train.length.count": 3}
    overrides |= {"vocabulary.kind": "bytes", "data.length": 16, "data.batch.rows": 8, "train.log_every": 1}
    options = [f"--config={CONFIGS / 'quickstart.py'}", f"--workdir={tmp_path / 'run'}"]
    options += [f"--config.{name}={value}" for name, value in overrides.items()]
    _, seen = command(tmp_path, "tests.helpers.tiny_train", *options)
    assert check_files(tmp_path) > 10
    assert any(tmp_path.rglob("run-*.wandb"))
    assert not [each for each, names in seen.items() if names and each.startswith("git ")], seen


async def _ask(url: str) -> None:
    """Ask an endpoint one question, whatever comes of it."""
    endpoint = Endpoint(llm_clients.config(url), SECRETS["OPENAI_API_KEY"])
    with contextlib.suppress(Busy, Declined, UserError):
        await endpoint.complete(llm_clients.call("q"))
    await endpoint.close()


@contextlib.contextmanager
def _redirecting(status: int, target: str) -> Iterator[str]:
    """A server that sends every request elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", f"{target}/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        yield url


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_endpoint_that_sends_a_call_elsewhere_does_not_send_the_key_there(
    status: int,
) -> None:
    got: list[bytes] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append(str(self.headers).encode() + body)
            self.send_error(404)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Elsewhere) as there, _redirecting(status, there) as here:
        asyncio.run(_ask(here))
    assert not any(CANARY in each for each in got), got
