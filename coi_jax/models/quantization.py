"""Frozen matrices in fewer bytes: as bfloat16, or as int8 with a scale for each output channel.

The kernels of attention and MLP make up most of a network, and each of their output channels has a range of its own
(Dettmers et al. 2022, section 2.1): these become int8. The embedding and the head are bfloat16 then.
"""

from typing import Any

import jax.numpy as jnp
import qwix
from jax.typing import DTypeLike
from jaxtyping import Array, Float

MaybeQuantized = Any  # an array, or a qwix.QArray: int8 values and their scales


def dequantize(kernel: MaybeQuantized, dtype: DTypeLike) -> Float[Array, "..."]:
    """Return a parameter's values in a dtype, whether it is quantized or not."""
    if isinstance(kernel, qwix.QArray):
        values: Array = qwix.dequantize(kernel.astype(dtype))
    else:
        values = kernel.astype(dtype)
    return values


def cast_unquantized(kernel: MaybeQuantized, dtype: DTypeLike) -> MaybeQuantized:
    """Cast a parameter in fp32 to the compute dtype; return one in fewer bytes as it is."""
    is_exact = not isinstance(kernel, qwix.QArray) and kernel.dtype == jnp.float32
    return kernel.astype(dtype) if is_exact else kernel


def quantize(kernel: Float[Array, "..."], inputs: tuple[int, ...]) -> qwix.QArray:
    """Quantize to int8, with a scale for each channel: the largest magnitude along the axes `inputs`, over 127.5."""
    channels = tuple(axis for axis in range(kernel.ndim) if axis not in inputs)
    return qwix.quantize(kernel, jnp.int8, channelwise_axes=channels)
