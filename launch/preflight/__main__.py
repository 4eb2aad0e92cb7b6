"""Compiles a run's train step, prefill and decode for a TPU that is not there: does it fit, and how fast can it be?

Needs no TPU and no weights, only libtpu: pip install -c constraints.txt -e '.[launch]'
Example: python -m launch.preflight --config configs/mistral_7b.py --topology v5e:16x16 --price 1.2
Where it does not fit, it tries what would, and names the flags to add. Any field can be set: --config.model.remat=full
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.common import cli, files
from coi_jax.config.run import load_config
from coi_jax.data.arms import find_arm

EXIT_DOES_NOT_FIT = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 where the config fits as it is, 1 where it does not."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from launch.preflight import topologies
    from launch.preflight.analysis import count_examples, preflight
    from launch.preflight.text_report import render
    from launch.preflight.workload import Means

    config = load_config(arguments.config, overrides)
    find_arm(config.arm)
    memory = None if arguments.hbm is None else int(arguments.hbm * topologies.GIB)
    topology = topologies.parse(arguments.topology, arguments.slices, memory)
    means = Means(arguments.inputs, arguments.targets, arguments.examples or count_examples(config))
    result = {"config": arguments.config, "overrides": overrides} | preflight(
        config, topology, means, price=arguments.price, generation=not arguments.train_only
    )
    if arguments.out:
        files.write_json(arguments.out, result)
    print(json.dumps(result, indent=1) if arguments.json else render(result))
    return 0 if result["fits_as_configured"] else EXIT_DOES_NOT_FIT


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a config file, or a run's config.json")
    parser.add_argument("--topology", required=True, metavar="NAME", help="as v5e:16x16 or v5e-256")
    parser.add_argument(
        "--slices", type=cli.positive_int, default=1, metavar="N", help="of that topology; mesh.replica lies between"
    )
    parser.add_argument(
        "--hbm", type=cli.positive_float, metavar="GIB", help="memory of a chip to use; without it all that it has"
    )
    parser.add_argument(
        "--price", type=cli.positive_float, metavar="USD", help="of a chip for an hour: the cost of the run is told"
    )
    parser.add_argument(
        "--inputs", type=cli.positive_float, default=230, metavar="N", help="mean ids of a prompt, without caches"
    )
    parser.add_argument(
        "--targets", type=cli.positive_float, default=80, metavar="N", help="mean ids of an answer, without caches"
    )
    parser.add_argument(
        "--examples", type=cli.positive_int, metavar="N", help="in the data; without it as its manifest says, if there"
    )
    parser.add_argument("--train_only", action="store_true", help="leave prefill and decode out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--out", metavar="FILE", help="write that JSON there too")
    return parser


def command() -> int:
    """Run the command `coi-preflight`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
