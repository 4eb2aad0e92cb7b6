"""Damaged checkpoints: files that are missing, cut short or changed since they were saved."""

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import PathLike, as_path
from coi_jax.runs.checkpoint_steps import steps
from coi_jax.runs.storage_errors import failed_read

# How TensorStore's errors begin where the storage cannot be reached or has no room: the files may be sound.
NO_DAMAGE = (
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "ABORTED",
    "CANCELLED",
)
# What readers of files raise that are missing, cut short, changed, or of another kind.
DAMAGE = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    EOFError,
)


BEST = "best"  # the folder of the checkpoint that did best on the validation split


class DamagedCheckpoint(UserError):
    """A checkpoint that is there but cannot be restored as it was saved.

    Attributes:
      folder: the run's `checkpoints`.
      step: of the checkpoint.
      what: names it, and says what was found.
      is_agreed: all hosts know of it, so that they can take the same step.
    """

    def __init__(self, folder: PathLike, step: int, reason: str, *, is_agreed: bool = False) -> None:
        self.folder, self.step, self.is_agreed = as_path(folder), step, is_agreed
        self.what = f"checkpoint {self.folder / str(step)} is damaged ({reason})"
        super().__init__("checkpoint", self.folder / str(step), f"is damaged ({reason}); {self._way_on()}")

    def _way_on(self) -> str:
        """Return what to do about it; training needs no checkpoint of `best`."""
        if self.folder.name == BEST:
            way = "training then goes on without it, and config.evaluation.checkpoint=newest evaluates the last one"
            return f"restore its files, or remove the folder: {way}"
        older = max((one for one in steps(self.folder) if one < self.step), default=None)
        way = "train from the beginning" if older is None else f"go on from step {older}"
        return f"restore its files, or remove the folder to {way}"


class NotReadBack(UserError):
    """A checkpoint that did not get its name, since its files do not hold what was to be saved.

    Attributes:
      what: names it, and says what was found.
    """

    def __init__(self, folder: PathLike, step: int, reason: str) -> None:
        place = as_path(folder) / str(step)
        self.what = f"checkpoint {place} was not written as it was saved ({reason})"
        older = max(steps(folder), default=None)
        way = "train from the beginning" if older is None else f"go on from step {older}"
        super().__init__("checkpoint", place, f"was not written as it was saved ({reason}); run again to {way}")


class damage_errors:
    """Turn what Orbax raises about files that are missing, cut or changed into `DamagedCheckpoint`.

    An error of the storage or of this machine stays one: the files may be sound.

    Raises:
      DamagedCheckpoint: they are not as they were saved.
      OSError: the operating system failed to read them.
    """

    def __init__(self, folder: PathLike, step: int) -> None:
        self._folder, self._step = as_path(folder), step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, UserError):
            return
        while type(error) is Exception and error.__cause__ is not None:  # as Orbax wraps TensorStore's errors
            error = error.__cause__
        if failed := failed_read(error, self._folder / str(self._step)):
            raise failed from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        is_damage = isinstance(error, DAMAGE)
        if is_damage and not lines[0].startswith(NO_DAMAGE):
            raise DamagedCheckpoint(self._folder, self._step, shorten(lines[0], 160)) from None
