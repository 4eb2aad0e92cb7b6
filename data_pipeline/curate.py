"""Opens a local page on which a person accepts, edits or rejects the chains of a build, by keyboard.

Doubtful chains come sooner. Every decision is a line of WORK/decisions.jsonl at once; the same build command applies
them: what was rejected is left out, what was accepted or edited comes first.

  python -m data_pipeline.curate --work data/built.work
"""

import getpass
import os
import sys
import webbrowser
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.wording import count_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--work", required=True, metavar="DIR", help="work folder of a build")
    parser.add_argument("--decisions", metavar="FILE", help="file of decisions; without it WORK/decisions.jsonl")
    parser.add_argument("--by", default=_user(), help="who decides")
    parser.add_argument("--least_score", type=cli.integer, default=4, help="threshold around which chains are doubtful")
    parser.add_argument("--seed", type=cli.integer, default=0, help="of the order")
    parser.add_argument("--port", type=cli.integer, default=0, help="0: any that is free")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")
    arguments = parser.parse_args(argv)
    cli.check_port(arguments.port)
    # Imported once the command line is right, so that --help and mistakes need no Beam.
    from coi_jax.common.local_page import HOST
    from coi_jax.common.storage import AppendFile
    from data_pipeline.build.review import chain_outcomes
    from data_pipeline.build.review.curation import CurationSession
    from data_pipeline.build.review.curation_page import make_page_server

    path = arguments.decisions or f"{arguments.work}/decisions.jsonl"
    session = CurationSession(
        list(chain_outcomes.read(arguments.work)), path, arguments.by, arguments.least_score, arguments.seed
    )
    if not session.order:
        raise UserError("work", arguments.work, "the build has no whole chain of two steps or more")
    AppendFile(
        path, "--decisions" if arguments.decisions else "--work"
    ).close()  # or an error now, not at the first decision
    server = make_page_server(session, arguments.port)
    address = f"http://{HOST}:{server.port}/"
    print(f"{address}\n{count_of(len(session.order), 'chain')}; decisions go to {path}; Ctrl+C ends", flush=True)
    if not arguments.no_browser:
        webbrowser.open(address)
    server.serve_forever()
    return 0


def _user() -> str:
    """Return the name of whoever runs this; the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return f"user {os.getuid()}"


def command() -> int:
    """Run the command `coi-curate`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
