"""The networks: a Llama-type decoder and T5 behind one interface (`coi_jax.models.network`)."""

from coi_jax.models.kv_cache import Cache, gather_rows
from coi_jax.models.losses import LossSums
from coi_jax.models.network import Network, Params, build

__all__ = ["Cache", "LossSums", "Network", "Params", "build", "gather_rows"]
