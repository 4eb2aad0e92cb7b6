"""The registry of backends.

To add a backend, write its class in a module of this package (`protocol.Backend`) and add an entry here.
"""

from collections.abc import Callable

from launch.sweep.backends.local import LocalBackend
from launch.sweep.backends.protocol import Backend, Settings
from launch.sweep.backends.skypilot import SkypilotBackend
from launch.sweep.backends.slurm import SlurmBackend
from launch.sweep.backends.xpk import XpkBackend

# By their names in --backend.
BACKENDS: dict[str, Callable[[Settings], Backend]] = {
    "local": LocalBackend,
    "slurm": SlurmBackend,
    "skypilot": SkypilotBackend,
    "xpk": XpkBackend,
}
