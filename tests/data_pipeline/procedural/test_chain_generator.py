"""Generated chains: verified, fitting by type, split without a leak, counted, the same bytes twice."""

import collections
import itertools
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import DatasetWriter, read_chains, read_manifest
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from data_pipeline.procedural import catalogue, compose, splits
from data_pipeline.procedural.__main__ import main
from data_pipeline.procedural.chain_generator import Generator, Settings
from data_pipeline.procedural.compose import Limits
from data_pipeline.procedural.verification import follow, verify
from tests.helpers.paths import ROOT

SPLITS = ("train", "validation", "rephrased", "test")
BY_NAME = catalogue.by_name()
SMALL = ["--train_count", "60", "--validation_count", "20", "--rephrased_count", "20", "--test_count", "30"]


def small_settings(seed: int, families: list[str], max_level: int = 3, degenerate_share: float = 0.0) -> Settings:
    counts = {"train": {1: 15, 2: 15, 3: 15}, "validation": {2: 5}, "rephrased": {2: 5}, "test": {2: 8, 4: 8, 6: 8}}
    operations = catalogue.select(families, max_level)
    return Settings(seed, operations, counts, Limits(3, 7, 300), 5, 3, degenerate_share)


def names(chain: Chain) -> tuple[str, ...]:
    return tuple(step.task or "" for step in chain.steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of the whole catalogue."""
    path = tmp_path_factory.mktemp("procedural") / "out"
    assert main(["--out", str(path), "--seed", "3", *SMALL]) == 0
    return path


some_families = st.sets(st.sampled_from(sorted(catalogue.families())), min_size=1).map(sorted)


@given(st.integers(0, 10**9), some_families.filter(lambda chosen: chosen != ["conversions"]))
@settings(max_examples=12)
def test_every_chain_verifies_fits_and_changes_its_value(seed: int, families: list[str]) -> None:
    for split, chain in Generator(small_settings(seed, families)).chains():
        operations = [BY_NAME[name] for name in names(chain)]
        assert all(verify(chain))
        assert all(first.result is second.source for first, second in itertools.pairwise(operations))
        assert not any(operation.closed for operation in operations[:-1])
        assert {operation.family for operation in operations} <= set(families)
        assert [step.category for step in chain.steps] == [operation.category for operation in operations]
        assert chain.instruction == join([step.instruction for step in chain.steps])
        values = [chain.input, *chain.outputs]
        assert len(set(values)) == len(values)
        assert all(values)
        assert all(len(value or "") <= 300 for value in values)
        assert splits.input_split(chain.input) == split


@given(st.integers(0, 10**9))
@settings(max_examples=3)
def test_a_seed_decides_everything(seed: int) -> None:
    first, second, other = (list(Generator(small_settings(s, ["lists"])).chains()) for s in (seed, seed, seed + 1))
    assert first == second
    assert first != other
    assert not {chain.id for _, chain in first} & {chain.id for _, chain in other}


def test_the_same_bytes_twice(folder: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "again"), "--seed", "3", *SMALL]) == 0
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_counts_are_as_asked_and_ids_unique(folder: Path) -> None:
    counts = read_manifest(folder)["counts"]
    assert counts["train"] == {"1": 60, "2": 60, "3": 60}
    assert counts["test"] == {str(length): 30 for length in range(1, 7)}
    chains = [chain for split in SPLITS for chain in read_chains(folder, split)]
    assert len({chain.id for chain in chains}) == len(chains)
    assert len({(chain.input, names(chain)) for chain in chains}) == len(chains)
    assert {chain.source for chain in chains} == {"procedural"}


def test_a_longer_data_set_begins_with_the_shorter(folder: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "more"), "--seed", "3", *SMALL[:-1], "40"]) == 0
    for length in (1, 3, 6):
        shorter, longer = (list(read_chains(path, "test", length)) for path in (folder, tmp_path / "more"))
        assert longer[: len(shorter)] == shorter
        assert len(longer) == 40


def test_no_two_splits_share_an_input(folder: Path) -> None:
    inputs = [{chain.input for chain in read_chains(folder, split)} for split in SPLITS]
    assert not any(first & second for first, second in itertools.combinations(inputs, 2))


def runs(combination: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Every run of two or more operations in a combination."""
    starts = range(len(combination) - 1)
    return {combination[i:j] for i in starts for j in range(i + 2, len(combination) + 1)}


def test_no_test_combination_stands_anywhere_in_training_in_any_order(folder: Path) -> None:
    taught = set().union(*(runs(names(chain)) for chain in read_chains(folder, "train")))
    unordered = {tuple(sorted(combination)) for combination in taught}
    tested = {names(chain) for chain in read_chains(folder, "test") if chain.length > 1}
    assert len(tested) > 100
    assert not {tuple(sorted(combination)) for combination in tested} & unordered


def test_the_manifest_lists_the_combinations_of_each_split(folder: Path) -> None:
    listed = read_manifest(folder)["notes"]["combinations"]
    for split in SPLITS:
        found = collections.defaultdict(set)
        for chain in read_chains(folder, split):
            found[str(chain.length)].add(" > ".join(names(chain)))
        assert {length: sorted(combinations) for length, combinations in found.items()} == listed[split]


def test_variants_are_further_splits_that_change_no_other(tmp_path: Path) -> None:
    folder, counts = tmp_path / "plain", [f"--{split}_count=9" for split in SPLITS]
    settings = ["--operations=lists", "--max_level=1", "--lengths=1,2", "--test_lengths=2,3", *counts]
    assert main([f"--out={folder}", *settings]) == 0
    asked = [f"--out={tmp_path / 'out'}", *settings, "--variants", "final,irrelevant,shuffled"]
    assert main(asked) == 0
    for split in SPLITS:
        name = f"{split}.jsonl"
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
        chains = {chain.id: chain for chain in read_chains(folder, split) if chain.length > 1}
        for kind in ("irrelevant", "shuffled", "final"):
            made = list(read_chains(tmp_path / "out", f"{split}_{kind}"))
            assert [chain.id for chain in made] == [f"{id}-{kind}" for id in chains]
            for chain in made:
                whole = chains[chain.id.rpartition("-")[0]]
                assert chain.input == whole.input
                assert chain.length == (1 if kind == "final" else whole.length)
                assert kind == "shuffled" or chain.outputs[-1] == whole.outputs[-1]
                assert kind == "final" or chain.steps != whole.steps
    assert main(asked) == 0  # the same settings
    with pytest.raises(UserError, match=r"holds a dataset of other settings \(variants\)"):
        main(asked[:-2])
    with pytest.raises(UserError, match="variants: fused: unknown; one of irrelevant, shuffled, final"):
        main([*asked[:-1], "fused"])


def test_held_out_phrasings_are_in_one_split_only(folder: Path) -> None:
    for split in SPLITS:
        for step in (step for chain in read_chains(folder, split) for step in chain.steps):
            operation = BY_NAME[step.task or ""]
            last = operation.instruction(-1, operation.read(step.instruction) or {})
            assert (step.instruction == last) == (split == "rephrased")


def test_operations_are_balanced_at_every_position_and_combinations_varied(tmp_path: Path) -> None:
    sizes = ["--test_lengths", "2", "--train_count", "600", "--test_count", "120"]
    arguments = ["--operations", "lists", "--max_level", "1", *sizes]
    assert main(["--out", str(tmp_path / "out"), *arguments]) == 0
    for split, length, smallest in (("train", 1, 36), ("train", 2, 34), ("train", 3, 30), ("test", 2, 5)):
        chains = [names(chain) for chain in read_chains(tmp_path / "out", split, length)]
        for position in range(length):
            uses = collections.Counter(chain[position] for chain in chains)
            assert len(uses) == 15
            assert min(uses.values()) >= smallest
        combinations = collections.Counter(chains)
        assert len(combinations) > 0.95 * min(len(chains), {1: 15, 2: 40, 3: 350}[length])
        assert combinations.most_common(1)[0][1] <= max(0.02 * len(chains), 2 * len(chains) / len(combinations))


def test_idle_steps_come_only_as_allowed_and_are_counted() -> None:
    generator = Generator(small_settings(0, ["lists"], degenerate_share=0.2))
    chains = [chain for _, chain in generator.chains()]
    idle = sum(len({chain.input, *chain.outputs}) < len(chain.steps) + 1 for chain in chains)
    assert 0 < idle <= 0.2 * len(chains) + 1
    assert generator.notes()["degenerate_chains"] == generator.degenerate > 0


def test_fewer_phrasings_and_items_make_easier_chains() -> None:
    settings_ = replace(small_settings(0, ["lists"], max_level=1), limits=Limits(3, 4, 300), phrasings=1)
    for split, chain in Generator(settings_).chains():
        assert 3 <= chain.input.count(",") + 1 <= 4
        for step in chain.steps if split != "rephrased" else ():
            operation = BY_NAME[step.task or ""]
            assert step.instruction == operation.instruction(0, operation.read(step.instruction) or {})


def wrong(step: Step) -> Step:
    return replace(step, output="zebra, zebra")


def test_verify_finds_the_wrong_step(folder: Path) -> None:
    for chain in read_chains(folder, "test", 3):
        spoiled = replace(chain, steps=(*chain.steps[:2], wrong(chain.steps[2])))
        assert verify(spoiled) == [True, True, False]
        renamed = replace(chain, steps=(replace(chain.steps[0], task="sort"), *chain.steps[1:]))
        assert verify(renamed) == [False, True, True]


def test_follow_judges_each_step_by_the_output_before_it() -> None:
    instructions = ["Remove the first word.", "Reverse the order of the words.", "Count the words."]
    assert follow(instructions, "apple, stone, fig", ["stone, fig", "fig, stone", "2"]) == [True, True, True]
    assert follow(instructions, "apple, stone, fig", ["apple, fig", "fig, apple", "2"]) == [False, True, True]
    assert follow(instructions, "apple, stone, fig", ["stone, fig", None, "2"]) == [True, False, False]
    assert follow(["Sing."], "apple", ["la"]) == [False]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--operations sort_word", "operations: sort_word: unknown; did you mean 'sort_words'?"),
        ("--operations numbers,list", "operations: list: unknown; did you mean 'lists'?"),
        ("--operations sort_words --max_level 1", "max_level: 1: leaves no operation"),
        ("--train_count -1", "train_count: -1: must be at least 0"),
        ("--train_count many", "train_count: many: write whole numbers"),
        ("--train_count 5,5", "train_count: 5,5: give one number, or one for each of the 3 lengths"),
        ("--train_count 0 --validation_count 0 --rephrased_count 0 --test_count 0", "ask for at least one chain"),
        ("--lengths 0", "lengths: 0: must be at least 1"),
        ("--lengths 101", "lengths: 101: must be at most 100"),
        ("--test_lengths 1" + "0" * 5000, "write whole numbers"),
        ("--lengths 2,2", "lengths: 2,2: name each length once"),
        ("--min_items 1", "min_items: 1: must be at least 2"),
        ("--min_items 7", "min_items: 7: must be at most 6; raise --max_items too"),
        ("--operations lists,,", "operations: lists,,: has an empty name"),
        ("--max_items 2", "max_items: 2: must be at least 3"),
        ("--max_items 40", "max_items: 40: must be at most 12"),
        ("--phrasings 4", "phrasings: 4: must be 1, 2 or 3"),
        ("--hold_out 1", "hold_out: 1: must be at least 2"),
        ("--degenerate_share 2", "degenerate_share: 2.0: must be from 0 to 1"),
        ("--operations sort_words", "lengths: 2: no combination of the 1 operations is left to teach"),
        ("--operations count_words --lengths 1", "test_lengths: 2: no combination of the 1 operations is held out"),
    ],
)
def test_an_impossible_request_is_told_in_one_line(
    arguments: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(lambda: main(["--out", str(tmp_path / "out"), *arguments.split()])) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_length_that_has_no_combination_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A taught combination of 30 operations exists at best among more than anybody can look through."""
    monkeypatch.setattr(compose, "SEARCHED", 2000)
    with pytest.raises(UserError, match=r"lengths: 30: no combination .* is left to teach; choose .* a shorter length"):
        main(["--out", str(tmp_path / "out"), "--lengths", "30", "--operations", "lists"])
    assert not list(tmp_path.iterdir())


def test_too_few_different_chains_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("data_pipeline.procedural.lexicon.NOUNS", ("apple", "stone", "fig"))
    arguments = ["--operations", "reverse_words", "--lengths", "1", "--test_lengths", "1", "--max_items", "3"]
    with pytest.raises(UserError, match=r"train_count: 4000: only \d+ different chains of length 1"):
        main(["--out", str(tmp_path / "out"), *arguments])


def test_the_folder_must_be_named() -> None:
    with pytest.raises(UserError, match="name the folder to write"):
        main([])


def test_a_folder_of_another_dataset_stays(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "out", "made here") as writer:
        writer.add("train", Chain("a", "made here", "x", "Copy.", (Step("Copy.", "x"),)))
        writer.finish("Apache-2.0", {})
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match=r"out.*'made here'.*'procedural'.*name a new folder"):
        main(["--out", str(tmp_path / "out"), *SMALL])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_catalogue_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--operations", "numbers,sort_words"]) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = "\n".join(" ".join(line.split()) for line in lines)  # without the padding of columns
    assert "| sort_words | lists | sorting | 2 | words → words | Sort the words alphabetically. |" in printed
    assert "reverse_words" not in printed
    assert len(printed.splitlines()) == 2 + 1 + len(catalogue.families()["numbers"])


def test_chains_of_other_settings_are_replaced_only_where_that_is_asked(tmp_path: Path) -> None:
    few = ["--train_count=8", "--validation_count=0", "--rephrased_count=0", "--test_count=2", "--lengths=1"]
    arguments = ["--out", str(tmp_path / "out"), "--operations=lists", "--test_lengths=2", *few]

    def tree() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    assert main(arguments) == 0
    before = tree()
    assert main(arguments) == 0  # the same job again
    assert tree() == before
    counts = "train chains by length"
    others = {"--seed=1": "seed", "--train_count=9": counts, "--max_items=5": "max_items", "--lengths=2": counts}
    for other, named in others.items():
        with pytest.raises(UserError, match=rf"out: .*out: holds a dataset of other settings \({named}"):
            main([*(given for given in arguments if given.partition("=")[0] != other.partition("=")[0]), other])
        assert tree() == before
    assert main([*arguments, "--seed=1", "--overwrite"]) == 0
    assert tree() != before


def test_a_killed_run_leaves_nothing_behind_after_the_next(tmp_path: Path) -> None:
    few = ["--operations=lists", "--lengths=1", "--test_lengths=2", "--test_count=2"]
    few += ["--train_count=8", "--validation_count=0", "--rephrased_count=0"]
    command = [sys.executable, "-m", "data_pipeline.procedural", f"--out={tmp_path / 'out'}", "--train_count=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/train.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."]
    assert main([f"--out={tmp_path / 'out'}", *few]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("option", "value"), [("--out=new", "new"), ("--seed=3", "3"), ("--overwrite", "with --list"), ("--lengths=1", "1")]
)
def test_the_list_of_operations_takes_no_options_of_a_dataset(option: str, value: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(UserError, match=f"^{name}: {value}: is of a dataset, and --list prints operations and writes"):
        main(["--list", "--max_level=1", option])


def test_a_folder_that_cannot_be_created_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda: main(["--out", "/proc/none", *SMALL])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: out: /proc/none: cannot be written (")
    assert error.count("\n") == 1


def test_an_unknown_operation_gets_a_few_near_names() -> None:
    with pytest.raises(UserError, match=r"^operations: foo: unknown; the nearest known names are .* --list") as caught:
        catalogue.select(["lists", "foo"], 3)
    assert len(str(caught.value)) < 250
