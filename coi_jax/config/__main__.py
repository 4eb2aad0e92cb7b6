"""Print the resolved config of a run: every field, as its `config.json` will hold it.

python -m coi_jax.config --config configs/quickstart.py --config.arm=coi12
python -m coi_jax.config --config configs/mistral_7b.py:lora
"""

import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.config.run import load_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="config file, FILE:ARGUMENT, or a run's config.json")
    arguments = parser.parse_args(rest)
    print(load_config(arguments.config, overrides).model_dump_json(indent=2))
    return 0


def command() -> int:
    """Run the command `coi-config`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
