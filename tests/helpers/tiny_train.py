"""`python -m tests.helpers.tiny_train ARGUMENTS`: `coi_jax.train` on stand-in batches, in its own process."""

import sys
import time
from collections.abc import Iterator
from unittest import mock

import jax

from coi_jax import train
from coi_jax.common import cli
from coi_jax.config.run import RunConfig
from coi_jax.parallel import hardware, sharding
from coi_jax.runs.run_folder import RunFolder
from coi_jax.training import loop, trainer
from coi_jax.training.loop import TrainingJob
from tests.helpers import tiny_models


class SlowLoader(tiny_models.StandInLoader):
    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        for batch in super().iterate(start_step, sharding):
            time.sleep(0.02)
            yield batch


def prepare(config: RunConfig, run: RunFolder) -> TrainingJob:
    loader = SlowLoader(tiny_models.steps_of(config))
    return loop.make_job(config, run, sharding.make_mesh(config.mesh), loader, tiny_models.network())


if __name__ == "__main__":
    hardware.matmul_peak = lambda dtype: 1e12
    with mock.patch.object(trainer, "prepare", prepare):
        status = cli.run(train.main)
    heavy = {"tensorflow", "seqio", "apache_beam", "torch"} & set(sys.modules)
    print(f"imported: {sorted(heavy)}")
    sys.exit(status)
