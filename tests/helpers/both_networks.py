"""A model of transformers with random weights, and this project's network with the same."""

import jax
import jax.numpy as jnp
from transformers import PreTrainedModel

from coi_jax.config.model import model_section
from coi_jax.families.published_config import from_hf_config
from coi_jax.models import Network, Params, build
from coi_jax.weights.hf_names import to_params
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.reference_layers import numpy
from tests.helpers.reference_models import FAMILIES, VOCABULARY, reference

Both = tuple[PreTrainedModel, Network, Params]


def make_both(family: str) -> Both:
    """The reference of a family, the network, and the parameters of both."""
    theirs = reference(FAMILIES[family])
    fields = from_hf_config(theirs.config.to_dict()) | RUN_FIELDS
    network = build(model_section(fields).model_validate(fields), VOCABULARY)
    weights = {name: numpy(weight) for name, weight in theirs.state_dict().items()}
    return theirs, network, jax.tree.map(jnp.asarray, to_params(network.config, network.abstract(), weights))
