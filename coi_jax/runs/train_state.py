"""All that a train step changes, and what it only passes on."""

from typing import Any, NamedTuple

from coi_jax.models import Params


class TrainState(NamedTuple):
    """All that a step changes, and what it only hands on. Shardings and abstract shapes are trees of the same type."""

    params: Params  # what is trained
    opt_state: Any
    step: Any  # int32 scalar: steps taken
    frozen: Params | None = None  # the base that adapters stand beside
