"""The process of a worker: runs commands of the project one after another, which share what is compiled and loaded.

Every line of standard input is a command as JSON, `["coi_jax.train", "--config", …]`, and is run as `python -m` would.
After its output the worker writes a line of the marker that it was given and the command's exit status. It ends with
its standard input, and with the process that started it.
"""

import gc
import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from coi_jax.common import child_processes, cli
from coi_jax.common.json_reader import parse_json
from coi_jax.weights import kept_base


def main(argv: Sequence[str]) -> int:
    """Run the commands of standard input.

    Args:
      argv: the marker of an exit status, and the numbers of the cores to run on; none are all that there are.
    """
    child_processes.end_with_parent()
    cli.quiet_libtpu()
    marker, *cores = argv
    if cores:
        os.sched_setaffinity(0, map(int, cores))  # before any thread is started

    with kept_base.keeping():
        for line in sys.stdin:
            status = run_command(*parse_json(line.encode()))
            gc.collect()  # networks and states lie in cycles: the next command needs their memory
            os.write(sys.stdout.fileno(), f"{marker}{status}\n".encode())
    return 0


def run_command(module: str, *arguments: str) -> int:
    """Run a module as the main one, with its output flushed; return its exit status.

    Args:
      module: such as `coi_jax.train`.
      arguments: of its command line.
    """
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
