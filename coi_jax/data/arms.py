"""The registry of arms: what each arm of an experiment is tuned on, or how it is prompted (paper, section 4).

To add an arm, add an entry to `ARMS`. To add a prompting baseline, also write the function of its worked answers in
`coi_jax.data.prompts`.
"""

from dataclasses import dataclass

from coi_jax.common.errors import UserError, nearest


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    Attributes:
      name: its name in `config.arm`, in run records and in tables.
      lengths: the chain lengths that it is tuned on; empty for a baseline that is prompted, not tuned.
      caption: its description in the legend of a figure.
      prompting: "direct" shows the model a chain alone; a name in `prompts.WORKED_ANSWERS` shows worked examples first.
      variant: the variant of the training split that it is tuned on, as "fused"; None for the training split itself.
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

    def training_split(self, split: str) -> str:
        """Return the split that the arm is tuned on, where `split` is the config's: `train`, or `train_fused`."""
        return split if self.variant is None else f"{split}_{self.variant}"


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


def find_arm(name: str) -> Arm:
    """Return the arm of a name.

    Raises:
      UserError: there is no such arm; the nearest name is given.
    """
    if name not in ARMS:
        raise UserError("config.arm", name, nearest(name, list(ARMS)))
    return ARMS[name]
