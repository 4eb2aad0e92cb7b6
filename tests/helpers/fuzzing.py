"""Gives damaged inputs to the readers of the project, each reader in a process with little time and memory.

`python -m tests.helpers.fuzzing` imports all readers once, and forks for each request: a line of JSON on standard input
with the name of a target of `tests.soak.fuzz_targets`, a seed and a count. The reply is a line of JSON too. An input
follows from target, seed and number, so that whoever mends a fault makes it again with `python -m
tests.helpers.fuzzing TARGET SEED NUMBER`.

A reader may return, or raise one of the errors that its target names, with a message of one line. Every other
exception, more than a second of CPU time, an allocation beyond 512 MiB and the end of the process are faults.
"""

import contextlib
import dataclasses
import gc
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from coi_jax.common.errors import UserError

SECONDS = 1.0  # of CPU time for an input
MEMORY = 2**29  # bytes
LONGEST_MESSAGE = 4000  # characters of an error
OFFLINE = {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}  # an input may name what is elsewhere
MOST_FAULTS = 5  # different ones, that are told of a target


class Hang(BaseException):
    """A reader takes too much time."""


@dataclass(frozen=True)
class Target:
    """A reader, and the inputs that it is given.

    Attributes:
      make: returns an input drawn from a generator.
      read: reads it.
      errors: what the reader may raise.
      memory: bytes of address space beyond what the process has with all readers imported.
    """

    make: Callable[[random.Random], Any]
    read: Callable[[Any], object]
    errors: tuple[type[BaseException], ...] = (UserError,)
    memory: int = MEMORY


@dataclass
class Outcome:
    """What became of the inputs of a target."""

    inputs: int = 0
    refused: int = 0
    peak_mib: int = 0
    faults: dict[str, dict[str, Any]] = field(default_factory=dict)


def draw(name: str, target: Target, seed: int, number: int) -> Any:
    """Return an input of a target."""
    return target.make(random.Random(f"{name} {seed} {number}"))


def attempt(target: Target, value: Any) -> tuple[bool, str, str]:
    """Let a reader read an input; return whether it refused, and what is wrong ("" where nothing is), with details."""
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            target.read(value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except target.errors as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST_MESSAGE:
            return True, f"message of {len(message)} characters in several lines: {type(error).__name__}", message
        return True, "", ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/coi_jax/" in frame.filename or "/data_pipeline/" in frame.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
        return False, f"{type(error).__name__} at {place}", "".join(traceback.format_exception(error)[-8:])
    return False, "", ""


def fuzz(name: str, target: Target, seed: int, count: int, place: mmap.mmap) -> Outcome:
    """Give `count` inputs to a target; the number of the one at hand stands in `place`, should the process end."""
    found = Outcome()
    for number in range(count):
        place[:8] = struct.pack("<q", number)
        value = draw(name, target, seed, number)
        refused, fault, details = attempt(target, value)
        found.inputs += 1
        found.refused += refused
        if fault and fault not in found.faults and len(found.faults) < MOST_FAULTS:
            shown = repr(value)
            found.faults[fault] = {"number": number, "input": shown[:1500], "details": details[-2500:]}
    return found


def _hang(_: int, __: FrameType | None) -> NoReturn:
    raise Hang


def _limit(memory: int) -> int:
    """Let the address space of this process grow by so many bytes; return what it has resident."""
    pages, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    limit = int(pages) * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return int(resident) * resource.getpagesize()


def _child(name: str, target: Target, seed: int, count: int, place: mmap.mmap, pipe: int) -> NoReturn:
    """Fuzz a target in this process, write the outcome into a pipe, and end."""
    signal.signal(signal.SIGPROF, _hang)
    gc.freeze()
    scratch = Path(tempfile.mkdtemp(prefix="fuzz", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    os.chdir(scratch)
    try:
        before = _limit(target.memory)
        found = fuzz(name, target, seed, count, place)
        found.peak_mib = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) >> 20
        with os.fdopen(pipe, "w") as file:
            json.dump(dataclasses.asdict(found), file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)


def run_target(name: str, target: Target, seed: int, count: int) -> dict[str, Any]:
    """Fuzz a target in a child process; return its outcome."""
    place = mmap.mmap(-1, 8)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        _child(name, target, seed, count, place, write_end)
    os.close(write_end)
    with os.fdopen(read_end) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if text:
        return dict(json.loads(text))
    number = struct.unpack("<q", place[:8])[0]
    shown = repr(draw(name, target, seed, number))[:1500]
    fault = {"number": number, "input": shown, "details": f"wait status {status}"}
    return {"inputs": number + 1, "refused": 0, "peak_mib": 0, "faults": {"the process ended": fault}}


@contextlib.contextmanager
def fuzzer() -> Iterator[Callable[[str, int, int], dict[str, Any]]]:
    """Yield a function that fuzzes a target by name, seed and count, in a process which has all readers imported."""
    command = [sys.executable, "-m", "tests.helpers.fuzzing"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | OFFLINE
    ) as process:

        def ask(name: str, seed: int, count: int) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([name, seed, count]) + "\n")
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))

        yield ask
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def main() -> None:
    """Answer requests until standard input ends; or show one input, and what a reader makes of it."""
    from tests.soak import fuzz_targets

    warnings.simplefilter("ignore")
    targets = fuzz_targets.targets()
    if sys.argv[1:]:
        name, seed, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        signal.signal(signal.SIGPROF, _hang)
        value = draw(name, targets[name], seed, number)
        print(repr(value), *attempt(targets[name], value), sep="\n")
        return
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a reader prints is no reply
    for line in sys.stdin:
        name, seed, count = json.loads(line)
        print(json.dumps(run_target(name, targets[name], seed, count)), file=out, flush=True)


if __name__ == "__main__":
    main()
