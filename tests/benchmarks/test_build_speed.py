import json

import pytest

from benchmarks import build_speed
from coi_jax.common.errors import UserError
from tests.helpers.llm_server import running


def report(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, object]:
    capsys.readouterr()
    assert build_speed.main(flags) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_dry_run_takes_every_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COI_LLM_MODEL"):
        monkeypatch.setenv(name, "")  # which the benchmark sets
    found = report(capsys, "--part=dry_run", "--number=60")
    assert found["tasks"] == 60
    assert found["candidates"]


def test_all_ordered_pairs_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--part=rules", "--number=80")
    assert found["pairs"] == 80 * 80
    assert found["candidates"]


def test_all_calls_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    with running(brain="reader", delay=0.01) as server:
        found = report(capsys, "--part=calls", "--number=100", f"--base_url={server.url}", "--latency=0.01")
        assert server.counts()["requests"] == 100
    assert found["answered"] == 100
    with pytest.raises(UserError, match="name an endpoint"):
        build_speed.main(["--part=calls"])
