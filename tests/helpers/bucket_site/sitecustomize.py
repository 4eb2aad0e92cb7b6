"""Python imports this at its start where the folder is on PYTHONPATH: the emulated buckets are there at once."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[3]))
from tests.helpers.bucket import install

install()
sys.path.pop()
