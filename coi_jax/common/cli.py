"""The parts that all command lines share: help that fits a screen, one-line errors, dotted config overrides."""

import argparse
import contextlib
import difflib
import glob
import io
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from coi_jax.common import child_processes, interrupts
from coi_jax.common.command_errors import STANDARD_OUTPUT, explain
from coi_jax.common.errors import UserError, naming, shorten
from coi_jax.common.limits import LARGEST_INTEGER
from coi_jax.common.literals import read_number

# libtpu, where it is installed, asks what TPU it is on, and complains on stderr that a machine without one cannot tell.
NO_TPU = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}

Number = TypeVar("Number", int, float)

# What is raised where nobody can catch it any more: the loop that waited is closed, the interpreter is at its end.
LATE = ("Event loop is closed", "sys.meta_path is None")

LAST_PORT = 65535

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = interrupts.EXIT_STATUS
EXIT_BROKEN_PIPE = 141  # whoever read the output, as `head` does, has gone


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and whose help shows a default where there is one."""

    def __init__(self, **settings: Any) -> None:
        self._once: dict[str, argparse.Action] = {}  # the options that replace what was given before
        super().__init__(**settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an argument; its default is added to its help unless it is None, False or empty."""
        action = super().add_argument(*names, **settings)
        if settings.get("action", "store") == "store":
            self._once |= dict.fromkeys(action.option_strings, action)
        has_default = bool(action.default) or type(action.default) in (int, float)
        if action.help and has_default and argparse.SUPPRESS not in (action.default, action.help):
            action.help += " (default: %(default)s)"
        return action

    def error(self, message: str) -> NoReturn:
        """Print `message` with the way to the help, and exit with status 2."""
        self.exit(EXIT_USER_ERROR, f"error: {message}; see --help\n")

    def print_help(self, file: Any = None) -> None:
        """Print the help at once; where it cannot be written an error says so, which argparse itself would drop."""
        print(self.format_help(), end="", file=file, flush=True)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; a misspelt option is named before any that it leaves missing."""
        for argument in sys.argv[1:] if args is None else args:
            name = str(argument).partition("=")[0]
            if name.startswith("--") and name != "--" and name not in self._option_string_actions:
                self.error(f"{name}: {self._unknown(name)}")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; an option that does not collect its values is refused where it is given twice."""
        self._check_repeats([str(argument) for argument in (sys.argv[1:] if args is None else args)])
        return super().parse_known_args(args, namespace)

    def _check_repeats(self, args: Sequence[str]) -> None:
        found: dict[argparse.Action, str] = {}
        for index, argument in enumerate(args):
            name, equals, value = argument.partition("=")
            if action := self._once.get(name):
                values = [value] if equals else self._values(action, args[index + 1 :])
                if action in found:
                    self.error(str(given_twice(name, found[action], " ".join(values))))
                found[action] = " ".join(values)

    def _values(self, action: argparse.Action, left: Sequence[str]) -> list[str]:
        """Return what stands after the name of an option."""
        values = itertools.takewhile(lambda text: text.partition("=")[0] not in self._option_string_actions, left)
        return list(values)[: None if action.nargs else 1]

    def _unknown(self, name: str) -> str:
        """Return a hint about an unknown option, with what prints the fields of a config where the command has one."""
        hint = unknown_option(name, list(self._option_string_actions))
        return f"{hint} (python -m coi_jax.config --config FILE prints them)" if hint.endswith("=VALUE") else hint


def given_twice(name: str, first: object, second: object) -> UserError:
    """Return the error about an option that is there twice, where one of the values would be dropped."""
    return UserError(name, second, f"was given before, as {shorten(first, 200)}; give {name} once")


def unknown_option(name: str, known: Sequence[str]) -> str:
    """Return a hint about an unknown option: the nearest one, or how the fields of a config are given.

    Args:
      name: of the option, with its dashes.
      known: the options of the command.
    """
    names = {option.lstrip("-"): option for option in known}  # dashes would make all alike
    close = difflib.get_close_matches(name.lstrip("-"), list(names), n=1)
    if close:
        return f"unknown; did you mean {names[close[0]]!r}?"
    return "unknown; settings are given as --config.FIELD=VALUE" if "--config" in known else "unknown"


def parser(description: str | None) -> Parser:
    """Return a parser that shows defaults and keeps the description's own line breaks."""
    layout = argparse.RawDescriptionHelpFormatter
    return Parser(prog=program(), description=description, formatter_class=layout, allow_abbrev=False)


def program() -> str:
    """Return how this process was started: `python -m coi_jax.train`, or the name of an installed script."""
    spec = sys.modules["__main__"].__spec__
    return Path(sys.argv[0]).name if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--config.FIELD=VALUE` and `--config.FIELD VALUE` out of a command line.

    Values stay text: a field's type says how it is read (`coi_jax.config.overrides`). As with `ml_collections`,
    `--config.FLAG` without a value is True, and `--noconfig.FLAG` is False.

    Example: `["--workdir", "x", "--config.seed=3"]` → `(["--workdir", "x"], {"seed": "3"})`.

    Raises:
      UserError: a field is set twice.
    """
    rest: list[str] = []
    overrides: dict[str, Any] = {}
    left = list(argv)
    while left:
        argument = left.pop(0)
        if not argument.startswith(("--config.", "--noconfig.")):
            rest.append(argument)
            continue
        name, value = _read_override(argument, left)
        if name in overrides:
            raise given_twice(f"--config.{name}", overrides[name], value)
        overrides[name] = value
    return rest, overrides


def _read_override(argument: str, left: list[str]) -> tuple[str, Any]:
    """Return the field of an override and its value, which is taken from the arguments `left` where it stands there."""
    if argument.startswith("--noconfig."):
        return argument.removeprefix("--noconfig."), False
    name, equals, value = argument.removeprefix("--config.").partition("=")
    if equals:
        return name, value
    return name, left.pop(0) if left and not left[0].startswith("--") else True


def set_field(overrides: dict[str, Any], field: str, option: str, value: Any) -> None:
    """Set the override that an option is short for.

    Args:
      overrides: of the command line, changed in place.
      field: the dotted name.
      option: its short form.
      value: None or empty where the option was not given.

    Raises:
      UserError: the field is set in both ways.
    """
    if value is None or value == "":
        return
    if field in overrides:
        hint = f"sets config.{field}, which was given before, as {shorten(overrides[field], 200)}; give one of them"
        raise UserError(option, value, hint)
    overrides[field] = value


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as the flags that `split_overrides` reads back: `--config.seed=1`."""
    return [f"--config.{name}={value if isinstance(value, str) else repr(value)}" for name, value in overrides.items()]


def integer(text: str) -> int:
    """Read an integer as the fields of a config have it (`--config.seed`), as the `type` of an argument."""
    with contextlib.suppress(ValueError):
        return read_number(int, text)
    raise argparse.ArgumentTypeError(f"{shorten(text, 40)!r} should be an integer, as 12")


def number(text: str) -> float:
    """Read a finite number as the fields of a config have it, as the `type` of an argument."""
    with contextlib.suppress(ValueError):
        return read_number(float, text)
    raise argparse.ArgumentTypeError(f"{shorten(text, 40)!r} should be a number, as 0.5")


def positive_int(text: str) -> int:
    """Read an integer above 0, as the `type` of an argument."""
    return _positive(integer, text)


def positive_float(text: str) -> float:
    """Read a finite number above 0, as the `type` of an argument."""
    return _positive(number, text)


def check_port(number: int) -> None:
    """Raise UserError where no port has a number; 0 stands for any that is free."""
    if not 0 <= number <= LAST_PORT:
        hint = f"is none; name one from 1 to {LAST_PORT}, or 0 for any that is free"
        raise UserError("--port", number, hint)


def names(text: str) -> list[str]:
    """Read names with commas between them, each once, as the `type` of an argument."""
    found = text.split(",")
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{shorten(text, 40)!r} should be different names with commas between them")
    return found


def _positive(kind: Callable[[str], Number], text: str) -> Number:
    with contextlib.suppress(argparse.ArgumentTypeError):
        if 0 < (value := kind(text)) <= LARGEST_INTEGER:
            return value
    whole = "an integer" if kind is integer else "a number"
    raise argparse.ArgumentTypeError(f"{shorten(text, 40)!r} should be {whole} above 0, at most {LARGEST_INTEGER:,}")


def run(main: Callable[[], int]) -> int:
    """Call `main`; a user's mistake becomes one line on stderr and status 2, a full disk likewise."""
    _open_missing_streams()
    _name_output()
    _print_all_characters()
    child_processes.end_with_parent()
    quiet_libtpu()
    sys.unraisablehook = _quiet_late_reads
    try:
        with interrupts.as_keyboard_interrupt():
            status = main()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print(interrupts.LINE, file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        if getattr(error, "filename", None) == STANDARD_OUTPUT:
            _drop_output()
        return EXIT_USER_ERROR


def _open_missing_streams() -> None:
    """Open the null device for standard streams that are closed, so that no other file gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


class _StandardOutput(io.TextIOWrapper):
    """Standard output, whose name an error about writing has: the system itself says no name."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        with naming(STANDARD_OUTPUT):
            return super().write(text)

    def flush(self) -> None:
        """Write what is not written yet."""
        with naming(STANDARD_OUTPUT):
            super().flush()


def _name_output() -> None:
    """Let errors name standard output, but where something else, as a test, has taken its place."""
    stream = sys.stdout
    if stream is sys.__stdout__ and isinstance(stream, io.TextIOWrapper):
        stream.flush()
        sys.stdout = _StandardOutput(
            stream.buffer,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


def _drop_output() -> None:
    """Drop what cannot be written any more, or the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_all_characters() -> None:
    """Print what the encoding of the terminal lacks as an escape, rather than fail after all the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _quiet_late_reads(unraisable: Any) -> None:
    """Drop what Orbax and TensorStore say of reads and writes that end after another of the same checkpoint failed."""
    if not str(unraisable.exc_value).startswith(LATE):
        sys.__unraisablehook__(unraisable)


def quiet_libtpu() -> None:
    """Answer libtpu's questions where this machine has no TPU; on one that has, libtpu finds out for itself."""
    if not [*glob.glob("/dev/accel*"), *glob.glob("/dev/vfio/*")]:
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)
