"""Select the kernel for the attention of packed rows: the platform's own, where it supports them, else XLA."""

from jaxtyping import Array, Float

from coi_jax.common.errors import UserError
from coi_jax.models.kernels import cudnn, splash
from coi_jax.parallel.hardware import platform

PLATFORM_KERNELS = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}


def select_kernel(requested: str, query: Float[Array, "B H L C"], *, packed: bool, cap: float | None) -> str:
    """Return the kernel for some rows: "xla", "splash" or "cudnn".

    Args:
      requested: `config.model.attention`.
      query: the queries of these rows.
      packed: whether a row may hold several examples.
      cap: the soft cap of the scores; None for none.

    Raises:
      UserError: the requested kernel does not support them.
    """
    default = PLATFORM_KERNELS.get(platform(), "xla")
    kernel = default if requested == "auto" else requested
    if kernel == "xla":
        return kernel
    if kernel != default:
        raise UserError("config.model.attention", requested, f'not a kernel of platform "{platform()}"; take "auto"')
    if kernel == "splash":
        reason = splash.unsupported_reason(query)
    else:
        reason = cudnn.unsupported_reason(query, packed=packed, cap=cap)
    if reason and requested != "auto":
        raise UserError("config.model.attention", requested, f'{reason}; or take "auto"')
    return "xla" if reason else kernel
