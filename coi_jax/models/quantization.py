"""Frozen matrices in fewer bytes: as bfloat16, or as int8 with a scale for each output channel.

Kernels of attention and MLP are what most of a network is, and each of their output channels has a range of its own
(Dettmers et al. 2022, section 2.1); int8 holds those. The embedding and the head are bfloat16 then.
"""

from typing import Any

import jax.numpy as jnp
import qwix
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Held = Any  # an array, or a qwix.QArray: int8 values and their scales


def dense(kernel: Held, dtype: DTypeLike) -> Float[Array, "..."]:
    """A parameter's values in the compute dtype, whatever it is held as."""
    if isinstance(kernel, qwix.QArray):
        return qwix.dequantize(kernel.astype(dtype))
    return kernel.astype(dtype)


def narrow(kernel: Held, dtype: DTypeLike) -> Held:
    """A parameter in fp32 as the compute dtype; one that is held in fewer bytes stays as it is."""
    is_exact = not isinstance(kernel, qwix.QArray) and kernel.dtype == jnp.float32
    return kernel.astype(dtype) if is_exact else kernel


def quantize(kernel: Float[Array, "..."], inputs: tuple[int, ...]) -> qwix.QArray:
    """int8 values, and a scale for each channel: the largest magnitude along the axes `inputs`, over 127.5."""
    channels = tuple(axis for axis in range(kernel.ndim) if axis not in inputs)
    return qwix.quantize(kernel, jnp.int8, channelwise_axes=channels)
