"""The registry of arms: what each arm of an experiment is tuned on, or how it is prompted (paper, section 4).

To add an arm, add an entry to `ARMS`. To add a prompting baseline, also write its calls in `coi_jax.data.prompts`. Each
arm that is tuned on chains of several steps is also an arm on each of `VARIANTS`: `coi12_irrelevant` is `coi12` on
irrelevant chains.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coi_jax.common.errors import UserError, nearest


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    Attributes:
      name: its name in `config.arm`, in run records and in tables.
      lengths: the chain lengths that it is tuned on; empty for a baseline that is prompted, not tuned.
      caption: its description in the legend of a figure.
      prompting: "direct" shows the model a chain alone; a name in `prompts.PROMPTINGS` shows worked examples first.
      variant: the variant of the training split that its chains of several steps come from, as "fused"; None for the
        training split itself.
    """

    name: str
    lengths: tuple[int, ...]
    caption: str
    prompting: str = "direct"
    variant: str | None = None

    @property
    def is_tuned(self) -> bool:
        """Return whether the arm is trained before it is evaluated."""
        return bool(self.lengths)

    @property
    def has_variants(self) -> bool:
        """Return whether the arm is tuned on chains that variants are made of: those of several steps."""
        return self.variant is None and max(self.lengths, default=0) > 1


# In the order of the paper's tables.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("base", (), "not tuned"),
        Arm("cot", (), "not tuned, shown worked examples", prompting="cot"),
        Arm("ltm", (), "not tuned, least-to-most", prompting="ltm"),
        Arm("coi1", (1,), "tuned on chains of 1 step"),
        Arm("coi2", (2,), "tuned on chains of 2 steps"),
        Arm("coi3", (3,), "tuned on chains of 3 steps"),
        Arm("coi12", (1, 2), "tuned on chains of 1 or 2 steps"),
        Arm("coi123", (1, 2, 3), "tuned on chains of 1, 2 or 3 steps"),
    )
}

# The variants of chains, and what the caption of an arm on one says of it.
VARIANTS: dict[str, str] = {
    "irrelevant": "with outputs of other chains",
    "summarized": "with one instruction for all steps",
    "fused": "with one instruction for all steps",
    "rephrased": "in other words",
    "shuffled": "with steps in another order",
    "final": "with the final answer alone",
    "erased": "with worked answers, the strategy erased from the prompt",
    "kept": "with worked answers, the strategy kept in the prompt",
}


def arm_names() -> list[str]:
    """Return the names of all arms: those of `ARMS`, then those on a variant."""
    arms = [arm.name for arm in ARMS.values() if arm.has_variants]
    return [*ARMS, *(f"{arm}_{variant}" for arm in arms for variant in VARIANTS)]


def find_arm(name: str) -> Arm:
    """Return the arm of a name.

    Raises:
      UserError: there is no such arm; the nearest name is given.
    """
    if name in ARMS:
        return ARMS[name]
    if name not in arm_names():
        raise UserError("config.arm", name, nearest(name, arm_names()))
    base, _, variant = name.rpartition("_")
    return replace(ARMS[base], name=name, caption=f"{ARMS[base].caption}, {VARIANTS[variant]}", variant=variant)


def sort_arms(names: Iterable[str]) -> list[str]:
    """Return the names of some arms, each once, in the order of `arm_names`."""
    return sorted(set(names), key=arm_names().index)
