import os
import subprocess
import sys

import pytest
from etils import epath

from launch.preflight import topologies
from launch.sweep.backends.tpu_environment import CHIP_FLAGS, SLICE_FLAGS, tpu_environment, xla_flags
from tests.helpers.paths import ROOT

SWEEP = epath.Path("gs://bucket/sweep")


@pytest.mark.parametrize(
    ("accelerator", "slices", "flags"),
    [
        ("tpu-v6e-8", 1, CHIP_FLAGS["v6e"]),
        ("v6e-256", 2, (*CHIP_FLAGS["v6e"], *SLICE_FLAGS)),
        ('{"tpu-v4-16": 1}', 1, CHIP_FLAGS["v4"]),
        ("tpu-v5litepod-8", 1, ()),
        ("v5p-128", 4, SLICE_FLAGS),
        ("H100:8", 1, ()),
    ],
)
def test_flags_follow_from_chips_and_slices(accelerator: str, slices: int, flags: tuple[str, ...]) -> None:
    assert xla_flags(accelerator, slices) == flags


def test_the_users_variables_win() -> None:
    own = {"LIBTPU_INIT_ARGS": "", "WANDB_ENTITY": "me"}
    assert tpu_environment("tpu-v6e-8", 1, SWEEP, own) == own | {"JAX_COMPILATION_CACHE_DIR": "gs://bucket/sweep/xla"}
    assert tpu_environment("tpu-v6e-8", 1, SWEEP, {})["LIBTPU_INIT_ARGS"] == " ".join(CHIP_FLAGS["v6e"])


def test_the_guide_has_every_flag() -> None:
    guide = (ROOT / "docs" / "guides" / "pods.md").read_text(encoding="utf-8")
    for flags in (SLICE_FLAGS, *CHIP_FLAGS.values()):
        assert f"| `{' '.join(flags)}` |" in guide


@pytest.mark.tpu
def test_libtpu_knows_every_flag() -> None:
    """It ends the process where it does not."""
    code = "from launch.preflight import topologies\nprint(len(topologies.devices(topologies.parse('v6e:2x2'))))"
    every = [*SLICE_FLAGS, *(flag for flags in CHIP_FLAGS.values() for flag in flags)]
    environment = os.environ | topologies.ENVIRONMENT | {"JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment | {"LIBTPU_INIT_ARGS": " ".join(flags)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for flags in (every, ["--xla_tpu_no_such_flag=1"])
    ]
    (good, bad) = [process.communicate(timeout=120)[0] for process in started]
    assert good.endswith("4\n")
    assert started[0].returncode == 0
    assert "Unknown command line flag 'xla_tpu_no_such_flag'" in bad
