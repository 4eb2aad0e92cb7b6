"""Damages of files: one bit flipped, cut in half, emptied, deleted; every file of a folder, one at a time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


def flip(path: Path, chance: random.Random) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, _: random.Random) -> None:
    """Keep the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _: random.Random) -> None:
    """Keep no byte."""
    path.write_bytes(b"")


def delete(path: Path, _: random.Random) -> None:
    """Remove the file."""
    path.unlink()


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__: function for function in (flip, cut, empty, delete)
}


@dataclass(frozen=True)
class Damage:
    """What happens to one file.

    Attributes:
      file: its path below the folder.
      kind: one of KINDS.
      seed: what is changed follows from it.
    """

    file: str
    kind: str
    seed: str

    def apply(self, folder: Path) -> None:
        """Damage the file of a folder."""
        KINDS[self.kind](folder / self.file, random.Random(f"{self.seed} {self.file} {self.kind}"))


def draw(folder: Path, seed: int, most: int, flips: int = 1, left_out: Sequence[str] = ()) -> list[Damage]:
    """Damages of the files of a folder; every one where there are not more than asked for.

    Args:
      folder: whose files, those of its folders too.
      seed: what is drawn follows from it.
      most: damages.
      flips: bits of each file, one at a time.
      left_out: names of files that are none of the project's.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kinds = [("flip", f"{seed}.{number}") for number in range(flips)] + [(kind, str(seed)) for kind in [*KINDS][1:]]
    every = [
        Damage(name, kind, which)
        for name in names
        if Path(name).name not in left_out
        for kind, which in kinds
        if (folder / name).stat().st_size or kind == "delete"
    ]
    return every if len(every) <= most else random.Random(seed).sample(every, most)
