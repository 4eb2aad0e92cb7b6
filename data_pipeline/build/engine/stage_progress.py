"""The progress bar of the running stage: what runs in this process advances it, workers elsewhere do not."""

from coi_jax.common.progress import Bar


class StageProgress:
    """Holds the bar of the running stage, if there is one."""

    bar: Bar | None = None

    def advance(self) -> None:
        """Count one more answer."""
        if self.bar:
            self.bar.advance()


PROGRESS = StageProgress()
