"""`python -m tests.stand_in_train ARGUMENTS`: the command `coi_jax.train` on stand-in batches, in its own process."""

import sys
import time
from collections.abc import Iterator

import jax

from coi_jax import cli, hardware, sharding, train, training
from coi_jax.config import RunConfig
from coi_jax.run_folder import RunFolder
from coi_jax.training import Job
from tests import stand_ins


class SlowLoader(stand_ins.StandInLoader):
    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        for batch in super().iterate(start_step, sharding):
            time.sleep(0.02)
            yield batch


def prepare(config: RunConfig, run: RunFolder) -> Job:
    loader = SlowLoader(config.train.steps)
    return training.make_job(config, run, sharding.make_mesh(config.mesh), loader, stand_ins.network())


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    hardware.matmul_peak = lambda dtype: 1e12
    train.prepare = prepare
    status = cli.run(train.main)
    heavy = {"tensorflow", "seqio", "apache_beam"} & set(sys.modules)
    print(f"imported: {sorted(heavy)}")
    sys.exit(status)
