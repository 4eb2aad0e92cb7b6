"""Files of one input, in the working folder of the process that reads it."""

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_numbers = itertools.count()


def read_files(files: Mapping[str, bytes], read: Callable[[Path], Any]) -> None:
    """Write files into a folder that no input had before, as readers remember files by their paths; read, remove."""
    folder = Path(f"input{next(_numbers)}")
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        read(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], None]:
    """Return what reads the bytes of a single file."""
    return lambda data: read_files({name: data}, lambda folder: read(folder / name))
