"""Serve tuned models: an OpenAI-compatible endpoint, and a page to ask them step by step.

  python -m coi_jax.serve --workdir runs/coi12
  python -m coi_jax.serve --workdir runs/coi12 --workdir runs/coi1 --port 8080
  python -m coi_jax.serve --weights SmolLM2-135M-Instruct --slots 4

Answers to /v1/chat/completions and /v1/completions as OpenAI's clients ask, and to the field `coi`: a list of
instructions. Listens to this machine alone unless --host names another address; then set the environment variable
COI_SERVE_KEY, which clients must send as their API key. SIGTERM ends it after what is in flight.
"""

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder
from coi_jax.config.published_run import RECIPE, imported_config
from coi_jax.runs.early_checks import check_run
from coi_jax.serving.listening import open_socket

if TYPE_CHECKING:
    from coi_jax.inference.model import Model

KEY = "COI_SERVE_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    arguments = parser.parse_args(rest)
    if not arguments.workdir and not arguments.weights:
        parser.error("give --workdir DIR or --weights FOLDER")
    for host in arguments.allowed_host:
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
            raise UserError("--allowed_host", host, "is no name of a host; write it without scheme, port and path")
    cli.check_port(arguments.port)
    key = _key(os.environ)
    _check_models(arguments.workdir, arguments.weights, overrides)
    listening = open_socket(arguments.host, arguments.port)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from coi_jax.parallel import processes
    from coi_jax.serving.app import make_app
    from coi_jax.serving.server import serve
    from coi_jax.serving.service import Limits, Service

    limits = Limits(
        arguments.slots, arguments.queue, arguments.timeout, arguments.max_prompt_tokens, arguments.max_new_tokens
    )
    processes.start_jax()
    with tempfile.TemporaryDirectory() as temporary:
        models = _load(arguments.workdir, arguments.weights, overrides, Path(temporary))
        service = Service(models, limits)
        hosts = {*LOOPBACK, arguments.host.lower(), *(host.lower() for host in arguments.allowed_host)}
        app = make_app(service, hosts, key)
        host, port = listening.getsockname()[:2]
        print(f"serving {', '.join(models)} at http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
        if key is None and arguments.host not in LOOPBACK:
            print(f"warning: {KEY} is not set: whoever reaches this address may ask", file=sys.stderr)
        serve(app, service, listening)
    return 0


def _key(environment: Mapping[str, str]) -> str | None:
    """Return the key that clients must send, None for none; raise UserError where no client could send it."""
    key = environment.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(KEY, "…", "holds characters that no header can; take letters, digits and signs of ASCII")
    return key or None


def _check_models(workdirs: Sequence[str], weights: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Raise UserError where a model cannot be what is served, before JAX is imported to load it."""
    names = [_name(folder) for folder in (*workdirs, *weights)]
    for index, folder in enumerate((*workdirs, *weights)):
        if names[index] in names[:index]:
            option = "--workdir" if index < len(workdirs) else "--weights"
            hint = f"another model is named {names[index]}, too; rename one of the folders"
            raise UserError(option, folder, hint)
    for folder in workdirs:
        check_run(folder)
    for folder in weights:
        imported_config(Folder(folder, "--weights"), RECIPE, overrides)


def _name(folder: str) -> str:
    """Return the name that requests call a model by: that of its folder."""
    return folder.rstrip("/").rpartition("/")[2] or folder


def _load(
    workdirs: Sequence[str], weights: Sequence[str], overrides: Mapping[str, Any], temporary: Path
) -> dict[str, "Model"]:
    """Return the models by their names: those of their folders."""
    from coi_jax.inference.model import load_to_ask
    from coi_jax.inference.published import load_published

    models: dict[str, Model] = {}
    for folder in workdirs:
        models[_name(folder)] = load_to_ask(folder, overrides)
    for folder in weights:
        models[_name(folder)] = load_published(folder, temporary / f"run{len(models)}", overrides=overrides)
    return models


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", action="append", default=[], metavar="DIR", help="run folder; may be repeated")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="FOLDER",
        help="published weights as they are; may be repeated",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=cli.integer, default=8000, help="0: any that is free")
    parser.add_argument("--slots", type=cli.positive_int, default=8, help="prompts that are answered at the same time")
    parser.add_argument("--queue", type=cli.positive_int, default=256, help="prompts that may wait for a slot")
    parser.add_argument("--timeout", type=cli.positive_float, default=600.0, help="seconds that a request may take")
    parser.add_argument(
        "--max_prompt_tokens", type=cli.positive_int, help="longest prompt (default: data.length of the run)"
    )
    parser.add_argument(
        "--max_new_tokens", type=cli.positive_int, help="longest answer (default: evaluation.max_new_tokens of the run)"
    )
    parser.add_argument("--allowed_host", action="append", default=[], help="name that requests may use for this host")
    return parser


def command() -> int:
    """Run the command `coi-serve`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
