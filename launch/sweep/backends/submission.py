"""What backends share that hand points to a cluster, where each runs by the local backend of its machine."""

from typing import Self

from launch.sweep.backends.protocol import Settings


class Submission:
    """A context manager that has nothing to interrupt: what is submitted runs elsewhere."""

    stopped = False

    def __enter__(self) -> Self:
        """Return the backend."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave everything as it is."""


def point_command(settings: Settings, python: str) -> list[str]:
    """Return the command that runs a point on its machine, before the `--only` that names the point.

    Args:
      settings: of the sweep.
      python: the interpreter there.
    """
    retries = ["--retries", str(settings.retries)] if settings.retries else []
    return [python, "-m", "launch.sweep", "--backend", "local", *settings.arguments, *retries]
