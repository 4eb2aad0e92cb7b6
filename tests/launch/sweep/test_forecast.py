"""Preflight of a sweep, with a `launch.preflight` that says what it would say of a model in little time."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import cli
from launch.sweep import __main__ as sweep
from tests.helpers.fake_commands import make_workplace
from tests.helpers.paths import ROOT

GIB = 2**30
FITTING: dict[str, Any] = {
    "fits": True,
    "fits_as_configured": True,
    "flags": "",
    "attempts": [{"memory": {"total": 12 * GIB}}],
    "run": {"hours": [1.0, 2.0], "usd": [10.0, 20.0]},
}
FAKE = """
import json, pathlib, sys
with open("asked.txt", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("compiling", file=sys.stderr)
result = json.loads(pathlib.Path("preflight.json").read_text())
print(json.dumps(result))
sys.exit(0 if result["fits_as_configured"] else 1)
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_workplace(tmp_path)
    (tmp_path / "launch").unlink()
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").write_text(f"__path__.append({str(ROOT / 'launch')!r})")
    (tmp_path / "launch" / "preflight.py").write_text(FAKE)
    (tmp_path / "preflight.json").write_text(json.dumps(FITTING))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    sweep_file = [] if "--sweep" in arguments else ["--sweep", "configs/sweeps/quickstart.py"]
    command = [*sweep_file, "--backend", "local", *arguments]
    return cli.run(lambda: sweep.main(command))


def test_hours_and_dollars_of_each_point_are_told_once_for_all_seeds(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seeds = ["--sweep", "configs/sweeps/quickstart_seeds.py", "--dry_run"]
    assert run(*seeds, "--preflight=v5e-16", "--price=1.2") == 0
    out = capfd.readouterr().out
    points = len(re.findall(r"  yes +12\.0 +1\.00–2\.00 +10\.00–20\.00$", out, re.MULTILINE))
    asked = (workplace / "asked.txt").read_text().splitlines()
    assert points > len(asked) == len({line.split("--config.arm=")[1].split()[0] for line in asked})
    assert "--topology v5e-16 --train_only --json --price 1.2" in asked[0]
    assert f"training of {points} points: {10 * points}.00–{20 * points}.00 USD by the roofline" in out
    assert not (workplace / "runs").exists()


def test_a_sweep_over_its_budget_does_not_start(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--preflight=v5e-16", "--price=1.2", "--budget=59.99") == 2
    assert "error: --budget: 59.99: the points that are left may cost 60.00" in capfd.readouterr().err
    assert not (workplace / "runs").exists()
    assert run("--preflight=v5e-16", "--price=1.2", "--budget=60") == 0
    assert run("--preflight=v5e-16", "--price=1.2", "--budget=1") == 0  # all are done by now


def test_a_price_needs_the_number_of_steps(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    unknown = FITTING | {"run": {"hours": None, "usd": None}}
    (workplace / "preflight.json").write_text(json.dumps(unknown))
    assert run("--preflight=v5e-16", "--price=1.2") == 2
    assert "write its token caches (python -m data_pipeline.cache) first" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fits": True, "flags": "--config.model.remat=full"}, "add --config.model.remat=full"),
        ({"fits": False, "flags": None, "run": None}, "take more chips, shorter rows or adapters (lora)"),
    ],
)
def test_a_point_that_does_not_fit_starts_nothing(
    workplace: Path, capfd: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    (workplace / "preflight.json").write_text(json.dumps(FITTING | {"fits_as_configured": False} | change))
    assert run("--preflight=v5e-16") == 2
    assert f"does not fit as configured; {says}" in capfd.readouterr().err
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--budget=5"], "error: --budget: 5.0: needs --preflight TOPOLOGY, as v5e-16"),
        (["--preflight=v5e-16", "--budget=5"], "error: --budget: 5.0: needs --price USD, of a chip for an hour"),
    ],
)
def test_flags_that_need_others(
    capfd: pytest.CaptureFixture[str], workplace: Path, flags: list[str], says: str
) -> None:
    assert run(*flags) == 2
    assert capfd.readouterr().err == f"{says}\n"


def test_an_error_of_preflight_is_one_line(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = 'import sys; print("a note", file=sys.stderr); sys.exit("error: topology: v5e-3: unknown")'
    (workplace / "launch" / "preflight.py").write_text(program)
    assert run("--preflight=v5e-3") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"error: --preflight: v5e-3: point coi1-\S+: topology: v5e-3: unknown", last)
