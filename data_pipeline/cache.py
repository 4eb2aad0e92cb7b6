"""Write the token caches that a config needs: the training tasks of its arm and its test sets.

Runs each SeqIO task once and keeps its ids, so that training and evaluation need neither TensorFlow nor SeqIO. What is
already there is left alone.

  python -m data_pipeline.cache --config configs/quickstart.py --config.arm=coi12
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="a config file, or a run's config.json")
    parser.add_argument("--tasks", type=cli.names, help="names, with commas; else all that the config needs")
    parser.add_argument("--vocabulary", help="a run's own copy of its vocabulary, to be taken instead")
    parser.add_argument("--json", action="store_true", help="print the folders, or the error, as JSON")
    arguments = parser.parse_args(rest)
    # Imported once the command line is right, so that --help and mistakes need no TensorFlow.
    from data_pipeline.tasks.cache_writer import needed, write

    try:
        config = load_config(arguments.config, overrides)
        tasks = arguments.tasks or needed(config)
        folders = [str(folder) for folder in write(config, tasks, arguments.vocabulary)]
    except UserError as error:
        if not arguments.json:
            raise
        print(json.dumps({"error": {"field": error.field, "value": str(error.value), "hint": error.hint}}))
        return cli.EXIT_USER_ERROR
    print(json.dumps({"caches": folders}) if arguments.json else "\n".join(folders))
    return 0


def command() -> int:
    """Run the command `coi-cache`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
