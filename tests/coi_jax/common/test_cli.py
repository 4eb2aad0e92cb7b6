import argparse
import errno
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from tests.helpers.bucket import HttpError
from tests.helpers.configs import quickstart_config
from tests.helpers.paths import ROOT


class UnreachableHost(OSError):
    """An error of a library for HTTP, which has no number of the operating system."""

    __module__ = "requests.exceptions"


def test_overrides_leave_the_command_line() -> None:
    argv = [
        "--workdir",
        "x",
        "--config.train.length.count=5",
        "--config.arm",
        "coi12",
        "--config.evaluation.tests=('a', 'b')",
    ]
    rest, overrides = cli.split_overrides(argv)
    assert rest == ["--workdir", "x"]
    assert overrides == {"train.length.count": "5", "arm": "coi12", "evaluation.tests": "('a', 'b')"}


def test_a_flag_needs_no_value() -> None:
    argv = ["--config.model.qk_norm", "--noconfig.model.qkv_bias", "--out", "x", "--config.joins.enabled"]
    rest, overrides = cli.split_overrides(argv)
    assert rest == ["--out", "x"]
    assert overrides == {"model.qk_norm": True, "model.qkv_bias": False, "joins.enabled": True}


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (["--config.seed=1", "--config.arm=coi1", "--config.seed", "2"], ("2", "as 1")),
        (["--config.seed=1", "--config.seed=1"], ("1", "as 1")),
        (["--config.remat", "--noconfig.remat"], ("False", "as True")),
    ],
)
def test_a_field_that_is_set_twice_is_refused_with_both_values(argv: list[str], values: tuple[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        cli.split_overrides(argv)
    name = argv[0].partition("=")[0]
    assert str(caught.value) == f"{name}: {values[0]}: was given before, {values[1]}; give {name} once"


def test_a_field_that_an_option_and_an_override_set_is_refused() -> None:
    overrides = {"seed": "1"}
    cli.set_field(overrides, "seed", "--seed", None)
    cli.set_field(overrides, "arm", "--arm", "coi1")
    assert overrides == {"seed": "1", "arm": "coi1"}
    with pytest.raises(UserError, match=r"^--seed: 0: sets config\.seed, which was given before, as 1; give one"):
        cli.set_field(overrides, "seed", "--seed", 0)


def test_an_override_without_a_value_is_an_error() -> None:
    for argument in ("--config.seed", "--noconfig.seed", "--config.arm"):
        _, overrides = cli.split_overrides([argument])
        with pytest.raises(UserError, match=r"write --config\.(seed|arm)=VALUE"):
            quickstart_config(overrides)


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("seed", -1, "must not be negative"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "out"), 2),
        (OSError(errno.EIO, "Input/output error"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/1234"), 2),
        (UnreachableHost("Max retries exceeded\nwith url: /api"), 2),
        (HttpError("Service Unavailable, 503"), 2),
        (MemoryError(), 2),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_mistake_is_one_line(error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda: _raise(error)) == status
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="other"):
        cli.run(lambda: _raise(OSError("other")))
    assert cli.run(lambda: 0) == 0


def test_usage_errors_are_one_line_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("Does something.")
    parser.add_argument("--out", type=Path, required=True, help="where to")
    with pytest.raises(SystemExit) as caught:
        parser.parse_args([])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the following arguments are required: --out; see --help\n"


@pytest.mark.parametrize(("given", "meant"), [("--work-dir=x", "--workdir"), ("--configs", "--config")])
def test_a_misspelt_option_is_named_before_what_it_leaves_missing(
    given: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli.parser("Does something.")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--config", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args([given])
    name = given.partition("=")[0]
    assert capsys.readouterr().err == f"error: {name}: unknown; did you mean '{meant}'?; see --help\n"


@pytest.mark.parametrize(
    ("argv", "refusal"),
    [
        (["--out", "a", "run", "--out=b"], "--out: b: was given before, as a; give --out once"),
        (["--out=a", "-o", "b"], "-o: b: was given before, as a; give -o once"),
        (["--only", "a", "b", "--only", "c", "--json"], "--only: c: was given before, as a b; give --only once"),
    ],
)
def test_an_option_that_is_given_twice_is_refused_with_both_values(
    argv: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = _parser_of_repeats()
    for parse in (parser.parse_args, parser.parse_known_args):
        with pytest.raises(SystemExit) as caught:
            parse(argv)
        assert caught.value.code == 2
        assert capsys.readouterr().err == f"error: {refusal}; see --help\n"


def test_options_that_collect_values_may_be_given_again() -> None:
    arguments = _parser_of_repeats().parse_args(["--run", "a", "--json", "--run=b", "--json", "--only", "c", "d"])
    assert arguments == argparse.Namespace(out=None, run=["a", "b"], only=["c", "d"], json=True, place=None)


def _parser_of_repeats() -> cli.Parser:
    parser = cli.parser("Does something.")
    parser.add_argument("place", nargs="?")
    parser.add_argument("-o", "--out")
    parser.add_argument("--run", action="append")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", action="store_true")
    return parser


@pytest.mark.parametrize("option", ["--workdir", "--config"])
def test_an_option_that_is_near_none_gets_no_suggestion(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("Does something.")
    parser.add_argument(option)
    with pytest.raises(SystemExit):
        parser.parse_args(["--steps", "5"])
    error = capsys.readouterr().err
    assert error.startswith("error: --steps: unknown; ")
    assert "did you mean" not in error
    assert ("--config.FIELD=VALUE (python -m coi_jax.config" in error) == (option == "--config")


def test_help_shows_the_defaults_that_say_something(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("Does something.")
    parser.add_argument("--out", required=True, help="where to")
    parser.add_argument("--limit", type=int, help="so many")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    printed = capsys.readouterr().out
    assert "(default: 0)" in printed
    assert printed.count("default") == 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "9" * 5000, "1e300"])
@pytest.mark.parametrize("kind", [cli.positive_int, cli.positive_float])
def test_numbers_of_arguments_are_positive_and_finite(
    kind: Callable[[str], float], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli.parser("Does something.")
    parser.add_argument("--size", type=kind)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--size={value}"])
    printed = capsys.readouterr().err
    assert "argument --size: " in printed
    assert "above 0" in printed
    assert len(printed) < 200
    assert parser.parse_args(["--size=3"]).size == 3


@pytest.mark.parametrize("text", ["12", " 3", "0x10", "1_000", "٣", "007", "1.5", "1e3", "True", "x", "-1", "9" * 5000])
def test_integers_of_options_and_of_fields_are_read_alike(text: str) -> None:
    try:
        seed = quickstart_config({"seed": text}).seed
    except UserError:
        with pytest.raises(argparse.ArgumentTypeError, match="should be an integer above 0, at most"):
            cli.positive_int(text)
    else:
        assert cli.positive_int(text) == seed


@pytest.mark.parametrize(
    "text", ["12", "1e-4", "1_000.5", "٣", "nan", "inf", "1e400", "True", "x", "", "-" * 100_000 + "1"]
)
def test_numbers_of_options_and_of_fields_are_read_alike(text: str) -> None:
    name = "optimizer.learning_rate"
    try:
        rate = quickstart_config({name: text}).optimizer.learning_rate
    except UserError:
        with pytest.raises(argparse.ArgumentTypeError, match=r"should be a number, as 0\.5"):
            cli.number(text)
    else:
        assert cli.number(text) == rate


@pytest.mark.parametrize("text", ["", "a,,b", "a,b,", "a,a"])
def test_names_of_an_argument_are_there_once_each(text: str) -> None:
    assert cli.names("a,b") == ["a", "b"]
    with pytest.raises(argparse.ArgumentTypeError, match="different names with commas"):
        cli.names(text)


def test_too_little_memory_is_one_line_that_says_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda: int(jax.numpy.zeros(2**50, "uint8")[0])) == 2
    error = capsys.readouterr().err
    assert re.match(r"error: memory: RESOURCE_EXHAUSTED: .* 1125899906842624 bytes.*; take fewer examples", error)
    assert error.count("\n") == 1


UNRAISABLE = """
import sys
from coi_jax.common import cli
class Late:
    def __init__(self, words):
        self.words = words
    def __del__(self):
        raise RuntimeError(self.words)
def main():
    for words in sys.argv[1:]:
        Late(words)
    return 0
sys.exit(cli.run(main))
"""


def test_reads_that_end_after_a_failure_say_nothing_and_other_errors_do() -> None:
    command = [sys.executable, "-c", UNRAISABLE]
    assert not subprocess.run([*command, "Event loop is closed"], capture_output=True, cwd=ROOT, check=True).stderr
    other = subprocess.run([*command, "another"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "RuntimeError: another" in other.stderr


def test_a_reader_that_has_gone_is_no_mistake() -> None:
    program = "import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: print('line ' * 10**6) or 0))"
    command = ["bash", "-c", '"$0" -c "$1" | head -c 5; exit ${PIPESTATUS[0]}', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (141, "line ", "")


def test_a_table_that_nobody_reads_is_no_mistake() -> None:
    program = (
        "import sys; from coi_jax.common import cli, terminal; "
        "sys.exit(cli.run(lambda: terminal.console().print('line') or 0))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("printed", ["print('x')", "cli.parser('Does something.').parse_args(['--help'])"])
def test_standard_output_that_is_full_is_named(printed: str, buffered: str) -> None:
    program = f"import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: {printed} or 0))"
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", f"import argparse; {program}"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    line = f"error: standard output: {os.strerror(errno.ENOSPC)}; make room where it goes, or send it elsewhere"
    assert (done.returncode, done.stderr) == (2, f"{line}, and run the same command again\n")


def test_help_that_nobody_reads_ends_as_a_broken_pipe() -> None:
    program = "import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: cli.parser('').parse_args(['-h'])))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_machine_without_a_tpu_says_nothing_of_it() -> None:
    program = "import jax; from coi_jax.common import cli; cli.run(lambda: print(jax.devices()[0].platform) or 0)"
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", *cli.NO_TPU)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("cpu\n", ""), "libtpu, which the tests install, is there"


@pytest.mark.parametrize(
    "setting",
    [
        "JAX_ENABLE_X64=both",
        "JAX_DEFAULT_MATMUL_PRECISION=most",
        "JAX_NUM_CPU_DEVICES=eight",
        "JAX_THREEFRY_PARTITIONABLE=7",
    ],
)
def test_a_setting_that_jax_refuses_is_one_line(setting: str) -> None:
    name, _, value = setting.partition("=")
    program = "import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: __import__('jax') and 0))"
    environment = os.environ | {name: value}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {name}: {value}: .*; correct or unset it\n", done.stderr)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "ascii:surrogateescape", "utf-8:strict"])
def test_what_the_encoding_of_the_terminal_lacks_is_printed_as_an_escape(encoding: str) -> None:
    printed = r"print('\u3002\udce9') or print('\u3002\udce9', file=sys.stderr)"
    program = f"import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: {printed}))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, cwd=ROOT)
    shown = b"\xe3\x80\x82\\udce9\n" if encoding.startswith("utf-8") else b"\\u3002\\udce9\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, shown)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_none_of_the_commands_business(tmp_path: Path, closed: str) -> None:
    """And no file that the command opens gets the number of one, into which output would be written."""
    program = "import sys; from coi_jax.common import cli; sys.exit(cli.run(lambda: open('made', 'w').fileno() <= 2))"
    quoted = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)} {closed}"
    done = subprocess.run(["sh", "-c", quoted], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True)
    assert done.returncode == 0
