"""The mixture of an arm: the chain lengths that it is tuned on, their shares, and where their rows come from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig, StepsConfig
from coi_jax.data.arms import Arm, find_arm

SMALLEST_SHARE = 1e-6  # a block of the stream holds two examples of each task


def check_mixture(config: RunConfig) -> None:
    """Check that the fields of a config that name chain lengths fit the lengths of its arm.

    Raises:
      UserError: one of them names another length or leaves one out, a ratio is too small, or no length is seen first.
    """
    arm = find_arm(config.arm)
    if not arm.is_tuned:
        return
    ratios, curriculum = config.data.ratios, config.data.curriculum
    if ratios is not None:
        _check_lengths("config.data.ratios", ratios, arm)
        if min(ratios.values()) < SMALLEST_SHARE * sum(ratios.values()):
            hint = f"gives a length a share below {SMALLEST_SHARE:g}; choose an arm without that length"
            raise UserError("config.data.ratios", ratios, hint)
    if curriculum is not None:
        _check_lengths("config.data.curriculum", curriculum, arm)
        if min(curriculum.values()) > 0:
            hint = "leaves step 0 without chains; let a length begin there"
            raise UserError("config.data.curriculum", curriculum, hint)
        length = config.train.length
        if isinstance(length, StepsConfig) and max(curriculum.values()) >= length.count:
            hint = f"begins a length after the last of {length.count} steps; let it begin before"
            raise UserError("config.data.curriculum", curriculum, hint)


def _check_lengths(field: str, by_length: Mapping[int, float | int], arm: Arm) -> None:
    if by_length.keys() != set(arm.lengths):
        lengths = ", ".join(map(str, arm.lengths))
        raise UserError(field, by_length, f"arm {arm.name} is tuned on chains of length {lengths}; name exactly those")


def mixing_rates(config: RunConfig, seqio_rates: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Return the mixing rate of each chain length of the config's arm.

    Args:
      config: its ratios, if any, take the place of SeqIO's rates.
      seqio_rates: of the tasks of the arm's mixture.
      sizes: the number of examples of each task, which are the rates where each example comes once an epoch.

    Raises:
      UserError: as `check_mixture`.
    """
    check_mixture(config)
    if config.data.ratios is not None:
        return [config.data.ratios[length] for length in find_arm(config.arm).lengths]
    return list(seqio_rates) if config.data.mixing == "rates" else [float(size) for size in sizes]


def first_steps(config: RunConfig) -> list[int] | None:
    """Return the step from which chains of each length of the arm are met; None: all of them from the first."""
    if config.data.curriculum is None:
        return None
    return [config.data.curriculum[length] for length in find_arm(config.arm).lengths]


class LengthShare(NamedTuple):
    """What a chain length has of a mixture.

    Attributes:
      task: the task of its chains, named by their split and length.
      examples: how many of them are trained on.
      share: of the examples that training meets, once the length has joined.
      passes: how often an epoch goes through the chains.
      start: the step from which they are met.
    """

    task: str
    examples: int
    share: float
    passes: float
    start: int


def shares(
    tasks: Sequence[str], sizes: Sequence[int], rates: Sequence[float], epoch: int, starts: Sequence[int] | None
) -> list[LengthShare]:
    """Return what each chain length has of a mixture.

    Args:
      tasks: the name of the task of each length.
      sizes: the number of examples of each task.
      rates: the mixing rate of each task.
      epoch: the number of examples of an epoch.
      starts: the step from which each task is met; None: all of them from the first.
    """
    parts = [rate / sum(rates) for rate in rates]
    return [
        LengthShare(task, size, part, part * epoch / size, start)
        for task, size, part, start in zip(tasks, sizes, parts, starts or [0] * len(tasks), strict=True)
    ]


def describe(mixture: Sequence[LengthShare]) -> str:
    """Return a mixture as one line: from where the chains of each length come, and how often they are met."""
    parts = [
        f"{each.share:.1%} {each.task} ({each.examples:,} examples, {each.passes:.3g} times an epoch"
        + (f", from step {each.start})" if each.start else ")")
        for each in mixture
    ]
    return f"training on {', '.join(parts)}"
