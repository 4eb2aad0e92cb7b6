"""The two sides of a measurement, each in a process of its own, asked in turn.

A side is a module that ends with `serve(make, …)`: it makes an object from a JSON file of settings and then answers
questions, one JSON line each, by calling the object's methods. Between questions it sleeps, so the thread pools of XLA
and torch never compete, and what disturbs the machine for a while disturbs both sides alike.
"""

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

ROOT = Path(__file__).parent.parent
READY = "ready"  # the question that is answered as soon as a side's object is made
# Both sides take large buffers anew at every step; on huge pages neither loses time in page faults.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "USE_TF": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


class SideError(RuntimeError):
    """A side's own exception, or its end; the message is its last line."""


class Side:
    """A child process that measures one implementation.

    Args:
      module: what the child runs, as `benchmarks.training_side_ours`.
      settings: the JSON file that it makes its object from.
      environment: variables of the child, in place of those of `ENVIRONMENT`.
      python: the interpreter that the child runs with.
    """

    def __init__(
        self,
        module: str,
        settings: Path,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.module = module
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = ENVIRONMENT | dict(environment or {}) | os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self._child = subprocess.Popen(
            [python, "-m", module, str(settings)],
            env=variables,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        """End the child, at once where something has gone wrong."""
        if kind is not None:
            self._child.kill()
        self._child.communicate()

    def ask(self, question: str, **arguments: Any) -> Any:
        """Call a method of the child's object and wait for what it gives.

        Raises:
          SideError: the method raised something, or the child has ended.
        """
        self.tell(question, **arguments)
        return self.hear()

    def tell(self, question: str, **arguments: Any) -> None:
        """Call a method without waiting: `hear` gives the answer."""
        with contextlib.suppress(BrokenPipeError):  # `hear` says that the child has ended
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps([question, arguments]) + "\n")
            self._child.stdin.flush()

    def hear(self) -> Any:
        """Return the answer to the oldest call that has none yet."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise SideError(f"{self.module} ended with exit status {self._child.wait()}; see above")
        answer, error = json.loads(line)
        if error:
            raise SideError(f"{self.module}: {error}")
        return answer


def serve(make: Callable[[dict[str, Any]], Any]) -> None:
    """The child's main loop. Whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    served: list[Any] = []
    for line in sys.stdin:
        question, arguments = json.loads(line)
        try:
            if not served:
                served.append(make(settings))
            _reply(answers, question == READY or getattr(served[0], question)(**arguments), None)
        except Exception as error:  # the parent raises it
            traceback.print_exc()
            _reply(answers, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _reply(answers: TextIO, answer: Any, error: str | None) -> None:
    answers.write(json.dumps([answer, error]) + "\n")
    answers.flush()


def all_ask(sides: Sequence[Side], question: str, **arguments: Any) -> list[Any]:
    """Ask all sides at once: for what is not timed."""
    for side in sides:
        side.tell(question, **arguments)
    return [side.hear() for side in sides]


def peak_memory() -> int:
    """Return the most bytes of main memory that this process has held at once, compiling included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kibibytes


def forget_peak_memory() -> None:
    """Begin anew what `peak_memory` counts, after what a measurement is not about."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, lowest and highest of some repeats."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }
