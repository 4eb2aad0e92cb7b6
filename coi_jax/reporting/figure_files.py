"""The files of a figure: PNG for pages, SVG and PDF for papers; the same figure gives the same bytes."""

import io

import matplotlib
from matplotlib.figure import Figure

from coi_jax.common import files
from coi_jax.common.storage import PathLike

# Formats, and the metadata that would differ each time.
FORMATS = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def write_images(figure: Figure, name: str, folder: PathLike) -> list[str]:
    """Write a figure in each of `FORMATS` and return the files' names.

    Args:
      figure: that is drawn.
      name: of the files, without their endings.
      folder: that they go to.
    """
    names = []
    for kind, metadata in FORMATS.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "coi"}):
            figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        names.append(f"{name}.{kind}")
        files.write_bytes(f"{folder}/{names[-1]}", buffer.getvalue())
    return names
