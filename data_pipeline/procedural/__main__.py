"""Write verifiable chains: a dataset folder of composed text operations with computed ground truth.

splits: train and validation share combinations of operations; test has others; no two splits share an input;
rephrased asks in words that train never uses. All but test have the lengths of --lengths.
example: python -m data_pipeline.procedural --out data/lists --operations lists --max_level 1 --lengths 1,2,3
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from coi_jax.chains.dataset import check_settings
from coi_jax.common import cli
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.wording import count_of
from data_pipeline.procedural import catalogue, splits
from data_pipeline.procedural.chain_generator import SOURCE, Generator, Settings, write
from data_pipeline.procedural.compose import Limits
from data_pipeline.variants import COMPUTED

MAX_LENGTH = 100  # steps of a chain
LISTED = ("list", "operations", "max_level")  # what --list heeds
MAX_ITEMS = 6  # of an input, unless another number is given


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.usage = "python -m data_pipeline.procedural (--out DIR | --list) [options]"
    add = parser.add_argument
    add("--out", help="the dataset folder to write")
    add("--overwrite", action="store_true", help="replace a dataset of other settings")
    add("--list", action="store_true", help="print the chosen operations and stop")
    add("--seed", type=cli.integer, metavar="N", default=0, help="the same seed gives the same bytes")
    add("--operations", metavar="A,B", default=",".join(catalogue.families()), help="families or names of operations")
    add(
        "--max_level",
        type=cli.integer,
        choices=(1, 2, 3),
        default=3,
        help="1 moves items, 2 looks at each, 3 calculates or spells",
    )
    add("--lengths", metavar="N,…", default="1,2,3", help="lengths of all splits but test")
    add("--test_lengths", metavar="N,…", default="1,2,3,4,5,6", help="lengths of test")
    add("--train_count", metavar="N,…", default="4000", help="chains of each length, or one number for each")
    add("--validation_count", metavar="N,…", default="100", help="likewise")
    add("--rephrased_count", metavar="N,…", default="100", help="likewise")
    add("--test_count", metavar="N,…", default="200", help="likewise, for --test_lengths")
    add("--min_items", type=cli.integer, metavar="N", default=3, help="smallest input: words, numbers, fields …")
    add("--max_items", type=cli.integer, metavar="N", default=MAX_ITEMS, help="largest input")
    add("--max_characters", type=cli.integer, metavar="N", default=400, help="longest text of a value")
    add("--phrasings", type=cli.integer, metavar="N", default=3, help="ways to ask for each operation, 1 to 3")
    add("--hold_out", type=cli.integer, metavar="N", default=5, help="one combination in this many is for test")
    add("--variants", metavar="A,…", default="", help=f"of chains of several steps: {', '.join(COMPUTED)}")
    add(
        "--degenerate_share",
        type=cli.number,
        metavar="P",
        default=0.0,
        help="share of chains that may idle a step",
    )
    return parser


def _integers(field: str, text: str, low: int) -> list[int]:
    try:
        found = [cli.integer(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise UserError(field, text, "write whole numbers with commas between, as 1,2,3") from None
    for number in found:
        _at_least(field, number, low)
    return found


def _at_least(field: str, number: float, low: float) -> None:
    if number < low:
        raise UserError(field, number, f"must be at least {low}")


def _counts(field: str, text: str, lengths: Sequence[int]) -> dict[int, int]:
    """Return the count of each length: one for all, or one for each."""
    counts = _integers(field, text, 0)
    if len(counts) == 1:
        counts = counts * len(lengths)
    if len(counts) != len(lengths):
        raise UserError(field, text, f"give one number, or one for each of the {len(lengths)} lengths")
    return dict(zip(lengths, counts, strict=True))


def _lengths(field: str, text: str) -> list[int]:
    lengths = _integers(field, text, 1)
    if len(set(lengths)) < len(lengths):
        raise UserError(field, text, "name each length once")
    if max(lengths) > MAX_LENGTH:
        raise UserError(field, text, f"must be at most {MAX_LENGTH}")
    return lengths


def _limits(args: argparse.Namespace) -> Limits:
    _at_least("min_items", args.min_items, 2)
    if args.min_items > args.max_items == MAX_ITEMS:  # as it is where --min_items alone is given
        hint = f"must be at most {MAX_ITEMS}; raise --max_items too"
        raise UserError("min_items", args.min_items, hint)
    _at_least("max_items", args.max_items, args.min_items)
    _at_least("max_characters", args.max_characters, 40)
    if args.max_items > 12:
        raise UserError("max_items", args.max_items, "must be at most 12")
    return Limits(args.min_items, args.max_items, args.max_characters)


def _check_only_lists(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise UserError for an option that --list, which writes no dataset, would ignore."""
    for name, value in vars(args).items():
        if name not in LISTED and value != parser.get_default(name):
            hint = "is of a dataset, and --list prints operations and writes none; leave one of the two out"
            raise UserError(f"--{name}", value if value is not True else "with --list", hint)


def _settings(args: argparse.Namespace) -> Settings:
    _at_least("hold_out", args.hold_out, 2)
    if not 1 <= args.phrasings <= 3:
        raise UserError("phrasings", args.phrasings, "must be 1, 2 or 3")
    if not 0 <= args.degenerate_share <= 1:
        raise UserError("degenerate_share", args.degenerate_share, "must be from 0 to 1")
    lengths = _lengths("lengths", args.lengths)
    counts = {
        splits.TRAIN: _counts("train_count", args.train_count, lengths),
        splits.VALIDATION: _counts("validation_count", args.validation_count, lengths),
        splits.REPHRASED: _counts("rephrased_count", args.rephrased_count, lengths),
        splits.TEST: _counts("test_count", args.test_count, _lengths("test_lengths", args.test_lengths)),
    }
    if not any(count for by_length in counts.values() for count in by_length.values()):
        raise UserError("train_count", args.train_count, "ask for at least one chain in some split")
    operations = catalogue.select(args.operations.split(","), args.max_level)
    limits = _limits(args)
    shares = (args.hold_out, args.phrasings, args.degenerate_share)
    return Settings(args.seed, operations, counts, limits, *shares, _variants(args.variants))


def _variants(text: str) -> tuple[str, ...]:
    """Return the variants that are asked for, in the order of `COMPUTED`."""
    asked = text.split(",") if text else []
    for name in asked:
        if name not in COMPUTED:
            raise UserError("variants", name, nearest(name, list(COMPUTED)))
    return tuple(name for name in COMPUTED if name in asked)


def _summary(generator: Generator, folder: str) -> str:
    lines = [f"{folder}: {generator.made} chains, {generator.degenerate} of them degenerate"]
    for (split, length), found in sorted(generator.combinations.items()):
        count = generator.settings.counts[split][length]
        lines.append(
            f"  {split:<10} length {length}: {count_of(count, 'chain')} of {count_of(len(found), 'combination')}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset, or print the catalogue."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list:
        _check_only_lists(args, parser)
        print(catalogue.table(catalogue.select(args.operations.split(","), args.max_level)))
        return 0
    if not args.out:
        raise UserError("out", "", "name the folder to write, as --out data/procedural")
    settings = _settings(args)
    if not args.overwrite:
        wanted = settings.notes() | {"variants": list(settings.variants)} | _by_length(settings.counts)
        check_settings(args.out, SOURCE, wanted, _settings_of)
    print(_summary(write(settings, args.out), args.out))
    return 0


def _settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the chains of a manifest were made with."""
    counts = {split: by for split, by in manifest["counts"].items() if split in splits.ALL}
    return {"variants": [], **manifest["notes"]} | _by_length(counts)


def _by_length(counts: Mapping[str, Mapping[Any, int]]) -> dict[str, dict[str, int]]:
    """Return the number of chains of each split by length, those without chains left out, by names for a message."""
    kept = {split: {str(length): n for length, n in counts.get(split, {}).items() if n} for split in splits.ALL}
    return {f"{split} chains by length": by for split, by in kept.items()}


def command() -> int:
    """Run the command `coi-procedural`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
