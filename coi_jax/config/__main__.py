"""Print the resolved config of a run: every field, as its `config.json` will hold it, and every name a known one.

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
    config = load_config(arguments.config, overrides)
    # The registries are in higher layers than configs: this command alone, not the package, may import them.
    from coi_jax.data.task_specs import check_names
    from coi_jax.training.optimizer import check_optimizer

    check_names(config)
    check_optimizer(config.optimizer)
    print(config.model_dump_json(indent=2))
    return 0


def command() -> int:
    """Run the command `coi-config`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
