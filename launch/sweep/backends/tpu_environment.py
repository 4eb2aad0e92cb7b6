"""The environment of a point's job on TPUs: XLA's flags for its chips, and a cache of compiled programs in the bucket.

libtpu reads the flags as it starts, from LIBTPU_INIT_ARGS, and ends where it does not know one. They are those in which
two public trainers agree, MaxText (github.com/AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py) and AXLearn
(github.com/apple/axlearn, axlearn/common/compiler_options.py).
"""

import os
import re
from collections.abc import Mapping

from etils import epath

FLAGS, CACHE = "LIBTPU_INIT_ARGS", "JAX_COMPILATION_CACHE_DIR"

# By chip generation. v5e and v5p need none.
CHIP_FLAGS = {
    # AXLearn: what is asynchronous by default from v5 on.
    "v4": ("--xla_enable_async_all_gather=true", "--xla_enable_async_collective_permute=true"),
    # Both: more of the vector memory for one operation, so larger tiles.
    "v6e": ("--xla_tpu_scoped_vmem_limit_kib=98304",),
}
# Both: gradients are summed between slices while the layer before is still being differentiated.
SLICE_FLAGS = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
    "--xla_tpu_data_parallel_opt_different_sized_ops=true",
)
GENERATION = re.compile(r"\b(v\d+[ep]?)(litepod)?-")  # as in tpu-v5litepod-8, v6e-8, v4-16


def tpu_environment(accelerator: str, slices: int, sweep: epath.Path, own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a job, those of the user's file among them, which win.

    Args:
      accelerator: the type, as `tpu-v5litepod-8`; of another kind of accelerator, which gets the cache alone.
      slices: of a point.
      sweep: the folder of the run folders.
      own: variables that the user sets.
    """
    environment = {CACHE: os.fspath(sweep / "xla")}
    if flags := xla_flags(accelerator, slices):
        environment[FLAGS] = " ".join(flags)
    return environment | dict(own)


def xla_flags(accelerator: str, slices: int = 1) -> tuple[str, ...]:
    """Return XLA's flags for slices of an accelerator type."""
    found = GENERATION.search(accelerator)
    if found is None:
        return ()
    return CHIP_FLAGS.get(found[1], ()) + (SLICE_FLAGS if slices > 1 else ())
