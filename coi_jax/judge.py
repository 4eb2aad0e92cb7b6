"""Compare the answers of two runs: by a language model, asked about each pair in both orders, or blindly by people.

  python -m coi_jax.judge --a runs/coi12 --b runs/coi1 --task coi2_test --budget 1
  python -m coi_jax.judge --a runs/coi12 --b runs/coi1 --task coi2_test --ballots ballots.csv
  python -m coi_jax.judge --a runs/coi12 --b runs/coi1 --task coi2_test --ballots ballots.csv --page
  python -m coi_jax.judge --a runs/coi12 --b runs/coi1 --task coi2_test --score ballots.csv

Prints how often run A is preferred, with a 95% interval, and writes it with every verdict to --out. Replies are kept:
the same command again asks nothing twice. --ballots writes a table that hides the runs, --page opens a local page on
which one person fills it in, --score reads what people chose.
"""

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from typing import Any

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.wording import count_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--a", required=True, metavar="DIR", help="run A, with predictions of python -m coi_jax.evaluate"
    )
    parser.add_argument("--b", required=True, metavar="DIR", help="run B, that A is compared with")
    parser.add_argument("--task", required=True, help="test set whose answers are compared")
    parser.add_argument("--config", default="configs/judge/pairwise.py", help="of the judge; --config.field=value too")
    parser.add_argument("--budget", type=cli.number, metavar="DOLLARS", help="for all calls; without it no limit")
    parser.add_argument("--ballots", metavar="FILE", help="writes a CSV file for people instead of asking a model")
    parser.add_argument("--page", action="store_true", help="opens a page of this machine that fills in --ballots")
    parser.add_argument("--port", type=cli.integer, default=0, help="of the page; 0: any that is free")
    parser.add_argument("--no_browser", action="store_true", help="only prints the address of the page")
    parser.add_argument("--score", nargs="+", metavar="FILE", help="reads such files back, one of each person")
    parser.add_argument("--out", metavar="FILE", help="JSON; in the folder judge/ of run A without it")
    arguments = parser.parse_args(rest)
    # Imported once the command line is right, so that --help and mistakes need little.
    from coi_jax.common import files
    from coi_jax.common.storage import as_path
    from coi_jax.judging import comparing
    from coi_jax.judging.judge_config import load_judge_config

    _check_options(arguments)
    asks = not (arguments.ballots or arguments.score)
    config = load_judge_config(arguments.config, overrides, needs_model=asks)
    compared = comparing.Compared(arguments.a, arguments.b, arguments.task)
    if arguments.page:
        print(comparing.open_ballots(compared, config, arguments.ballots))
        serve(arguments.ballots, arguments.port, opens=not arguments.no_browser)
        return 0
    if arguments.ballots:
        print(comparing.write_for_people(compared, config, arguments.ballots))
        return 0
    result = (
        comparing.by_model(compared, config, arguments.budget)
        if asks
        else comparing.by_people(compared, config, arguments.score)
    )
    out = arguments.out or comparing.default_path(compared, "model" if asks else "people")
    if as_path(out, "--out").exists() and "verdicts" not in files.read_object(out, "--out"):
        raise UserError("--out", out, "was not written by this command; name another file")
    files.write_json(out, result)
    print(describe(result), f"written: {out}", sep="\n")
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise UserError where options contradict each other, or one would be ignored."""
    if arguments.ballots and arguments.score:
        raise UserError("--score", ", ".join(arguments.score), "reads what --ballots wrote: give one of them")
    if arguments.page and not arguments.ballots:
        raise UserError("--page", "without --ballots", "fills in a table: name its file with --ballots")
    if arguments.budget is not None and (arguments.ballots or arguments.score):
        raise UserError("--budget", arguments.budget, "is for the calls of a model, and people make none; leave it out")
    if arguments.out and arguments.ballots:
        raise UserError("--out", arguments.out, "is for a result, which --ballots does not write; give it with --score")
    if (arguments.port or arguments.no_browser) and not arguments.page:
        option, value = ("--port", arguments.port) if arguments.port else ("--no_browser", "without --page")
        raise UserError(option, value, "is of the page; give --page too, or leave it out")
    cli.check_port(arguments.port)


def serve(ballots: str, port: int, *, opens: bool) -> None:
    """Serve the page of a table until the command is stopped.

    Args:
      ballots: the table.
      port: to listen on; 0 takes any that is free.
      opens: whether a browser is opened.
    """
    from coi_jax.common.local_page import HOST, make_local_server
    from coi_jax.judging.ballot_page import BallotSession, application

    session = BallotSession(ballots)
    server = make_local_server(application(session), port)
    address = f"http://{HOST}:{server.port}/"
    print(f"{address}\n{count_of(session.state()['pairs'], 'pair')}; choices go to {ballots}; Ctrl+C ends", flush=True)
    if opens:
        webbrowser.open(address)
    server.serve_forever()


def describe(result: dict[str, Any]) -> str:
    """Return the result of a comparison in a few lines."""
    lines = [f"A: {result['a']}", f"B: {result['b']}", f"{result['test_set']}, judged by {result['judge']}:"]
    for name, title in (
        ("win_rate", "A preferred (ties count half)"),
        ("wins", "A wins"),
        ("ties", "ties"),
        ("losses", "B wins"),
    ):
        if score := result.get(name):
            lines.append(f"  {title}: {score['value']:.1f}% [{score['low']:.1f}, {score['high']:.1f}]")
    notes = {"order_agreement": "same verdict in both orders", "first_rate": "chose what stood first"}
    lines += [f"  {title}: {result[name]:.1f}%" for name, title in notes.items() if result.get(name) is not None]
    lines += [f"  {title}: {_agreement(found)}" for title, found in _agreements(result) if found["pairs"]]
    counts = {"pairs": "pairs", "same": "of equal answers", "unusable": "left out, without a usable reply"}
    lines.append("  " + ", ".join(f"{result[name]:,} {title}" for name, title in counts.items() if name in result))
    return "\n".join(lines)


def _agreements(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what judges agree in, with its title: people with the model, and each two people."""
    model = result.get("agreement_with_model")
    between = result.get("agreement_between_people", [])
    return [
        *([("people and model agree", model)] if model else []),
        *(("two people agree", found) for found in between),
    ]


def _agreement(found: dict[str, Any]) -> str:
    kappa = "" if found["kappa"] is None else f", Cohen's kappa {found['kappa']:.2f}"
    return f"{found['agreement']:.1f}% of {count_of(found['pairs'], 'pair')}{kappa}"


def command() -> int:
    """Run the command `coi-judge`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
