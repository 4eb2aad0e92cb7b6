"""The state of training: what a step changes, and the frozen base that it only passes on."""

from typing import Any, NamedTuple

from coi_jax.models import Params


class TrainState(NamedTuple):
    """The state of training. Shardings and abstract shapes are trees of the same type."""

    params: Params  # trained
    opt_state: Any
    step: Any  # int32 scalar: the number of steps taken
    frozen: Params | None = None  # the base that adapters stand beside
