"""Which kernel computes the attention of packed rows: that of the platform, where it can take them."""

import jax
from jaxtyping import Array, Float

from coi_jax.common.errors import UserError
from coi_jax.models.kernels import cudnn, splash

OF_PLATFORM = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}


def choose(asked: str, query: Float[Array, "B H L C"], *, packed: bool, cap: float) -> str:
    """The kernel for some rows: "xla", "splash" or "cudnn".

    Args:
      asked: `config.model.attention`.
      query: of these rows.
      packed: whether a row may hold several examples.
      cap: that bends the scores; 0 caps nothing.

    Raises:
      UserError: the one that was asked for cannot take them.
    """
    here = OF_PLATFORM.get(platform(), "xla")
    kernel = here if asked == "auto" else asked
    if kernel == "xla":
        return kernel
    if kernel != here:
        raise UserError("config.model.attention", asked, f'not a kernel of platform "{platform()}"; take "auto"')
    obstacle = splash.obstacle(query) if kernel == "splash" else cudnn.obstacle(query, packed=packed, cap=cap)
    if obstacle and asked != "auto":
        raise UserError("config.model.attention", asked, f'{obstacle}; or take "auto"')
    return "xla" if obstacle else kernel


def platform() -> str:
    """Of the mesh in use, whose devices need not be there (it may be compiled for only), else of this machine."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform
