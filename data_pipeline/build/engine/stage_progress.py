"""The progress bar of the stage that is running: what runs in this process counts on it, other workers do not."""

from coi_jax.common.progress import Bar


class Meter:
    """Holds the bar, if any."""

    bar: Bar | None = None

    def advance(self) -> None:
        """Counts one more answer."""
        if self.bar:
            self.bar.advance()


METER = Meter()
