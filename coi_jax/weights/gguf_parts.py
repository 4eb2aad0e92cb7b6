"""Reads a model that llama.cpp has split into several GGUF files (`llama-gguf-split`), as one.

The parts are named NAME-00001-of-00003.gguf and so on. The first one has the metadata, every part the tensors of its
own.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import PathLike
from coi_jax.weights.gguf_file import GgufFile

PART = re.compile(r"(.*)-[0-9]{5}-of-([0-9]{5})(\.gguf)", re.IGNORECASE | re.DOTALL)


def part_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of a model, by the name of any of them; of a model in one file its name alone."""
    found = PART.fullmatch(name)
    if not found or int(found[2]) < 1:
        return (name,)
    return tuple(f"{found[1]}-{number:05}-of-{found[2]}{found[3]}" for number in range(1, int(found[2]) + 1))


class GgufParts:
    """The open files of one model, often one alone; closed at the end of a `with` block.

    Attributes:
      metadata: of the first file.
      tensors: what the headers say of each tensor, by name.
    """

    def __init__(self, paths: Sequence[PathLike], field: str) -> None:
        """Read the headers.

        Args:
          paths: of the files, in order.
          field: their name in an error.

        Raises:
          UserError: see `GgufFile`; or the files are not all the parts of one model.
        """
        self._parts: list[GgufFile] = []
        try:
            for path in paths:
                self._parts.append(GgufFile(path, field))
            self._check()
        except UserError:
            self.close()
            raise
        self.metadata = self._parts[0].metadata
        self._part_of = {name: part for part in self._parts for name in part.tensors}
        self.tensors = {name: part.tensors[name] for name, part in self._part_of.items()}

    def __enter__(self) -> "GgufParts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for part in self._parts:
            part.close()

    def error(self, hint: str, name: str = "") -> UserError:
        """Return an error about this model, or about one of its fields or tensors."""
        part = self._part_of.get(name, self._parts[0])
        return part.error(hint, name)

    def check_types(self) -> None:
        """See `GgufFile.check_types`."""
        for part in self._parts:
            part.check_types()

    def read(self, name: str) -> Float32[np.ndarray, "..."]:
        """See `GgufFile.read`."""
        return self._part_of[name].read(name)

    def _check(self) -> None:
        """Raise UserError where the files are not all the parts of one model, in order."""
        names: set[str] = set()
        for number, part in enumerate(self._parts):
            count = part.metadata.get("split.count") or 1
            if count != len(self._parts):
                if len(self._parts) == 1:
                    hint = (
                        "is one of several parts; name them NAME-00001-of-00003.gguf and so on, as they were published"
                    )
                    raise part.error(hint)
                hint = f"is one of {shorten(count, 20)} parts by its metadata, and of {len(self._parts)} by its name"
                raise part.error(f"{hint}; fetch it again")
            if part.metadata.get("split.no", 0) != number:
                found = shorten(part.metadata["split.no"], 20)
                raise part.error(f"is another part than its name says (split.no = {found}); fetch it again")
            if twice := names & part.tensors.keys():
                raise part.error("is in another part too; fetch the parts again, all of one model", min(twice))
            names |= part.tensors.keys()
        due = self._parts[0].metadata.get("split.tensors.count", len(names))
        if len(self._parts) > 1 and due != len(names):
            hint = f"has {len(names)} tensors in its parts, where {shorten(due, 20)} are due; fetch the parts again"
            raise self._parts[0].error(hint)
