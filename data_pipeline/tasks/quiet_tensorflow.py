"""Imports TensorFlow first, and without the dozen lines that its C++ prints before anyone can ask it not to.

Command lines import this module before SeqIO. What Python itself has to say (an ImportError) comes after, and is seen.
"""

import contextlib
import os
from collections.abc import Iterator

__all__ = ["tf"]


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _no_stderr():
    import seqio  # noqa: F401
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # looks for devices, and says so; the GPUs are for JAX
