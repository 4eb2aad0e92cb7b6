import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache as remember
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from coi_jax.chains.dataset import read_chains
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.batches import Batch
from coi_jax.data.loader import Loader, span
from coi_jax.data.prompts import prompt
from coi_jax.data.task_specs import training_tasks
from coi_jax.families.registry import PRESETS
from coi_jax.tokenizers.vocabulary import load_vocabulary
from coi_jax.training.step import split_microbatches
from tests.helpers.configs import epochs
from tests.helpers.paths import ROOT
from tests.helpers.token_caches import small_config, write_caches, write_dataset

T5 = {
    "model": PRESETS["t5_v11"]
    | {
        "vocabulary_size": None,
        "layers": 1,
        "decoder_layers": 1,
        "model_dim": 8,
        "heads": 1,
        "head_dim": 8,
        "mlp_dim": 8,
        "relative_buckets": 4,
        "relative_max_distance": 8,
        "dropout": 0.0,
        "dtype": "float32",
        "attention": "auto",
        "loss_chunk": None,
        "remat": "none",
        "scan_unroll": 1,
    }
}
MODES: dict[str, dict[str, Any]] = {
    "tokens": {"data__batch__rows": 8},
    "examples": {"data__batch": {"count": "examples", "examples": 10, "rows": None}},
    "rates": {"data__batch__rows": 8, "data__mixing": "rates"},
    "t5": {"data__batch__rows": 8, "data__targets_length": 256, **T5},
}
# Of the mixture and of the loss.
MIXTURES: dict[str, dict[str, Any]] = {
    "ratios": {"data__batch__rows": 8, "data__ratios": {1: 1.0, 2: 3.0}},
    "ratios of examples": MODES["examples"] | {"data__ratios": {1: 0.7, 2: 0.3}},
    "part of the data": MODES["examples"] | {"data__max_examples": 40},
    "curriculum": {"data__batch__rows": 8, "data__curriculum": {1: 0, 2: 4}},
    "curriculum of examples": MODES["examples"] | {"data__curriculum": {1: 5, 2: 0}, "data__ratios": {1: 1.0, 2: 1.0}},
    "last step": MODES["tokens"] | {"train__loss_on": {"kind": "last_step"}},
    "weighted steps": MODES["tokens"] | {"train__loss_on": {"kind": "weighted_steps", "weights": (0.25, 2.0)}},
    "first step": MODES["tokens"] | {"train__loss_on": {"kind": "weighted_steps", "weights": (1.0, 0.0)}},
    "last step of a t5": MODES["t5"] | {"train__loss_on": {"kind": "last_step"}},
}
ALL_MODES = MODES | MIXTURES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    write_dataset(folder / "data", {1: 60, 2: 40})
    write_caches(small_config(folder))
    return folder


def config_of(folder: Path, mode: str, **overrides: Any) -> RunConfig:
    return small_config(folder, **epochs(2.0) | ALL_MODES[mode] | overrides)


def load(folder: Path, mode: str, multiple: int = 1, **overrides: Any) -> Loader:
    config = config_of(folder, mode, **overrides)
    return Loader(config, token_cache.open_or_write(config, training_tasks(config)), load_vocabulary(config), multiple)


@remember
def loader_of(folder: Path, mode: str) -> Loader:
    return load(folder, mode)


def assert_same(first: Batch, second: Batch) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)


@pytest.mark.parametrize("mode", [mode for mode in ALL_MODES if mode not in ("first step", "weighted steps")])
@settings(max_examples=10)
@given(data=st.data())
def test_a_batch_is_a_function_of_the_step_alone(folder: Path, mode: str, data: st.DataObject) -> None:
    """Whatever was asked before (a restart), and however the rows are shared out among hosts."""
    known = loader_of(folder, mode)
    step = data.draw(st.integers(0, known.total_steps - 1))
    batch = load(folder, mode).batch(step)
    assert_same(batch, known.batch(step))
    cuts = data.draw(st.lists(st.integers(0, known.rows_per_step), max_size=3))
    ends = sorted({0, known.rows_per_step, *cuts})
    parts = [known.rows(step, slice(start, stop)) for start, stop in pairwise(ends)]
    assert_same(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})


@pytest.mark.parametrize("mode", [mode for mode in ALL_MODES if mode != "first step"])  # whose capacity is a bound
@pytest.mark.parametrize(("data_parts", "length_parts", "microbatches"), [(1, 1, 1), (4, 2, 1), (2, 4, 2)])
def test_the_target_capacity_holds_the_fullest_device(
    folder: Path, mode: str, data_parts: int, length_parts: int, microbatches: int
) -> None:
    loader = load(folder, mode, data_parts * microbatches, train__microbatches=microbatches)
    most = size = 0
    for step in range(loader.total_steps):
        parts = split_microbatches(jax.tree.map(jnp.asarray, loader.batch(step)), microbatches)["weights"]
        weights = np.asarray(parts).reshape(microbatches, data_parts, -1, length_parts, parts.shape[-1] // length_parts)
        most, size = max(most, int((weights != 0).sum((2, 4)).max())), weights[0, 0, :, 0].size
    assert most <= loader.target_capacity(data_parts, length_parts) < most + max(1, size // 32)


@pytest.mark.parametrize("mode", list(MODES))
def test_every_example_once_an_epoch_and_weights_count_its_answer(folder: Path, mode: str) -> None:
    loader, config = load(folder, mode, train__length__count=1.0), config_of(folder, mode)
    caches = token_cache.open_or_write(config, training_tasks(config))
    answers, weights = [], 0
    for step in range(loader.total_steps):
        batch = loader.batch(step)
        weights += int(batch["weights"].sum())
        for targets, weight, segments in zip(batch["targets"], batch["weights"], batch["segments"], strict=True):
            spans = [targets[(segments == k) & (weight == 1)] for k in range(1, segments.max() + 1)]
            answers += [tuple(span.tolist()) for span in spans]
    expected = [tuple(example[index].targets.tolist()) for example in caches for index in range(len(example))]
    assert sorted(answers) == sorted(expected)
    assert weights == sum(map(len, expected))
    assert loader.statistics()["dropped"] == loader.statistics()["cut"] == 0


def answers(batch: Batch) -> list[list[tuple[str, float]]]:
    """Of each example of a batch, the characters of its answer with their weights; the end of the answer is `|`."""
    found = []
    for row, (targets, weights, segments) in enumerate(
        zip(batch["targets"], batch["weights"], batch["segments"], strict=True)
    ):
        for segment in range(1, segments.max() + 1):
            mine = np.flatnonzero(segments == segment)
            prompt = (
                0 if "encoder_tokens" in batch else int(np.argmax(np.cumsum(batch["tokens"][row][mine] == 13) == 2))
            )
            characters = ["|" if token == 1 else chr(token - 3) for token in targets[mine][prompt:].tolist()]
            found.append([*zip(characters, weights[mine][prompt:].tolist(), strict=True)])
    return found


def text_of(answer: list[tuple[str, float]]) -> str:
    return "".join(character for character, _ in answer)


def is_chain(answer: list[tuple[str, float]]) -> bool:
    return text_of(answer).startswith("Task 1 output and task 2 input: ")


def lengths_met(loader: Loader, steps: Iterable[int] | None = None) -> list[int]:
    """The chain length of every example in some steps, of all steps where none are given."""
    batches = map(loader.batch, range(loader.total_steps) if steps is None else steps)
    return [2 if is_chain(answer) else 1 for batch in batches for answer in answers(batch)]


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [("last step", 0, 1), ("weighted steps", 0.25, 2), ("first step", 1, 0), ("last step of a t5", 0, 1)],
)
def test_the_weights_of_steps_lie_on_their_labels_and_outputs(
    folder: Path, mode: str, before: float, after: float
) -> None:
    loader, seen = loader_of(folder, mode), set()
    for batch in map(loader.batch, range(loader.total_steps)):
        assert batch["weights"].dtype == np.float32
        assert not batch["weights"][batch["segments"] == 0].any()
        for answer in answers(batch):
            text = text_of(answer)
            assert text.endswith("|")
            cut = text.index("Task 2 output: ") if is_chain(answer) else len(text)
            single = after if mode.startswith("last") else before
            expected = [before] * cut + [after] * (len(text) - cut) if is_chain(answer) else [single] * len(text)
            assert [weight for _, weight in answer] == expected
            seen.add(is_chain(answer))
    assert seen == {True, False}


@pytest.mark.parametrize("rule", ["cut_targets", "drop"])
def test_an_example_whose_last_step_is_cut_is_left_out(folder: Path, rule: str) -> None:
    fields: dict[str, Any] = {"data__length": 110, "data__overlong": rule, "data__max_dropped": 1.0}
    loader = load(folder, "last step", **fields)
    whole = load(folder, "tokens", **fields)
    batches = [loader.batch(step) for step in range(loader.total_steps)]
    assert all(any(weight for _, weight in answer) for batch in batches for answer in answers(batch))
    dropped, before = loader.statistics()["dropped"], whole.statistics()["dropped"]
    assert dropped > before == 0 if rule == "cut_targets" else dropped == before > 0


@pytest.mark.parametrize("mode", ["ratios", "ratios of examples"])
@pytest.mark.parametrize("ratios", [{1: 0.2, 2: 0.8}, {1: 9.0, 2: 1.0}, {1: 2.0, 2: 2.0}])
def test_ratios_are_the_shares_of_the_examples_that_are_met(folder: Path, mode: str, ratios: dict[int, float]) -> None:
    loader = load(folder, mode, data__ratios=ratios)
    met = lengths_met(loader)
    assert len(met) == 200  # two epochs, of as many examples as there are rows
    share = ratios[1] / sum(ratios.values())
    assert abs(met.count(1) - 200 * share) <= 2
    mixture = loader.statistics()["mixture"]
    assert [(each["task"], each["examples"]) for each in mixture] == [("train_length1", 60), ("train_length2", 40)]
    assert [each["share"] for each in mixture] == pytest.approx([share, 1 - share])
    assert mixture[0]["passes"] == pytest.approx(100 * share / 60, abs=1e-4)


def test_ratios_in_proportion_to_the_rows_are_the_mixture_of_all_rows(folder: Path) -> None:
    by_ratio, plain = load(folder, "tokens", data__ratios={1: 6.0, 2: 4.0}), loader_of(folder, "tokens")
    assert sorted(lengths_met(by_ratio)) == sorted(lengths_met(plain))
    assert plain.mixture_note == (
        "training on 60.0% train_length1 (60 examples, 1 times an epoch), "
        "40.0% train_length2 (40 examples, 1 times an epoch)"
    )


def test_a_part_of_the_data_is_part_of_a_larger_one(folder: Path) -> None:
    def distinct(count: int | None, seed: int = 0) -> set[str]:
        loader = load(folder, "examples", data__max_examples=count, seed=seed, train__length__count=1.0)
        found = [text_of(answer) for step in range(loader.total_steps) for answer in answers(loader.batch(step))]
        assert len(found) == (count or 100)
        return set(found)

    assert distinct(20) < distinct(60) <= distinct(None)
    assert distinct(20) != distinct(20, seed=1)
    assert Counter(lengths_met(load(folder, "examples", data__max_examples=50, train__length__count=1.0))) == {
        1: 30,
        2: 20,
    }


def test_a_curriculum_begins_with_some_lengths_and_is_the_same_in_a_longer_run(folder: Path) -> None:
    loader = loader_of(folder, "curriculum")
    assert set(lengths_met(loader, range(4))) == {1}
    assert set(lengths_met(loader, range(4, loader.total_steps))) == {1, 2}
    assert loader.total_steps == loader_of(folder, "tokens").total_steps
    longer = load(folder, "curriculum", train__length__count=3.0)
    assert longer.fingerprint == loader.fingerprint
    for step in range(loader.total_steps):
        assert_same(loader.batch(step), longer.batch(step))
    of_examples = loader_of(folder, "curriculum of examples")
    assert set(lengths_met(of_examples, range(5))) == {2}
    later = lengths_met(of_examples, range(5, of_examples.total_steps))
    assert abs(later.count(1) - later.count(2)) <= 12  # one and a half blocks, each of which has as many of both
    assert all(batch["segments"].max(1).sum() == 10 for batch in map(of_examples.batch, range(of_examples.total_steps)))
    assert "from step 4" in loader.mixture_note
    with pytest.raises(
        UserError, match=r"config\.data\.curriculum: .*the run has \d+ steps, and a length joins at step 900"
    ):
        load(folder, "curriculum", data__curriculum={1: 0, 2: 900})


def test_settings_of_the_mixture_and_the_loss_are_part_of_the_fingerprint(folder: Path) -> None:
    assert len({loader_of(folder, mode).fingerprint for mode in ALL_MODES}) == len(ALL_MODES)


def test_a_run_of_an_earlier_version_has_the_fingerprint_that_it_had(folder: Path) -> None:
    config = config_of(folder, "tokens")
    fields = ("split", "template", "chat", "mixing", "batch", "length", "targets_length", "overlong")
    data = {name: config.data.model_dump()[name] for name in fields}
    caches = token_cache.open_or_write(config, training_tasks(config))
    pairs = [[cache.hash, cache.rate] for cache in caches]
    assert loader_of(folder, "tokens").fingerprint == files.digest([config.seed, "decoder", data, pairs])


def test_settings_of_the_mixture_and_the_loss_write_no_cache(folder: Path) -> None:
    """They act on what is read: another ratio, size, curriculum or loss finds the caches that are there."""
    root = Path(config_of(folder, "tokens").data.cache_folder)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for mode in MIXTURES:
        load(folder, mode)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_seeds_and_epochs_have_orders_of_their_own(folder: Path) -> None:
    first = loader_of(folder, "examples")
    other = load(folder, "examples", seed=1)
    assert (first.batch(0)["tokens"][:4] != other.batch(0)["tokens"][:4]).any()
    assert (first.batch(0)["tokens"][:4] != first.batch(10)["tokens"][:4]).any()
    assert len({first.fingerprint, other.fingerprint, loader_of(folder, "tokens").fingerprint}) == 3
    assert load(folder, "tokens", train__length__count=5.0).fingerprint == loader_of(folder, "tokens").fingerprint


@pytest.mark.parametrize("mode", ["tokens", "t5"])
@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (2, 1)])
def test_iterating_gives_the_batches_on_any_mesh_from_any_step(folder: Path, mode: str, shape: tuple[int, int]) -> None:
    loader = loader_of(folder, mode)
    mesh = jax.make_mesh(shape, ("fsdp", "sequence"), (AxisType.Auto,) * 2, devices=jax.devices()[: np.prod(shape)])
    sharding = NamedSharding(mesh, PartitionSpec("fsdp", "sequence"))
    batches = list(loader.iterate(loader.total_steps - 3, sharding))
    assert len(batches) == 3
    for step, batch in enumerate(batches, loader.total_steps - 3):
        assert all(array.sharding == sharding for array in batch.values())
        assert_same(loader.batch(step), {name: np.asarray(array) for name, array in batch.items()})


def test_a_host_reads_only_its_own_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert span([(slice(4, 6), slice(None)), (slice(6, None), slice(None))], 8) == slice(4, 8)
    assert span([None], 8) == slice(0, 8)
    loader, read = load(folder, "tokens"), list[int]()
    original = token_cache.TokenCache.ids

    def ids(self: token_cache.TokenCache, indices: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        read.extend(indices)
        return original(self, indices)

    monkeypatch.setattr(token_cache.TokenCache, "ids", ids)
    segments = loader.rows(0, slice(4, 8))["segments"]
    assert len(read) == segments.max(1).sum()


def test_steps_outside_the_run(folder: Path) -> None:
    loader = loader_of(folder, "tokens")
    for step in (-1, loader.total_steps):
        with pytest.raises(IndexError, match=f"step {step} of"):
            loader.batch(step)


def test_overlong_examples_are_counted(folder: Path) -> None:
    dropped = load(folder, "tokens", data__length=130).statistics()
    assert dropped["dropped"] > 0
    assert dropped["cut"] == 0
    cut = load(folder, "tokens", data__length=130, data__overlong="cut_inputs").statistics()
    assert cut["dropped"] < dropped["dropped"]
    assert cut["cut"] > 0
    assert cut["examples"] == dropped["examples"] == 100


@pytest.mark.parametrize(
    ("mode", "template", "length"),
    [("tokens", "plain", 100), ("tokens", "alpaca", 302), ("t5", "plain", 50), ("t5", "alpaca", 250)],
)
def test_cut_inputs_are_cut_inside_their_template(tmp_path: Path, mode: str, template: str, length: int) -> None:
    write_dataset(tmp_path / "data", {1: 30, 2: 20})
    config = config_of(
        tmp_path,
        mode,
        data__template=template,
        data__length=length,
        data__overlong="cut_inputs",
        data__max_dropped=1.0,
    )
    vocabulary = write_caches(config)
    caches = token_cache.open_or_write(config, training_tasks(config))
    loader = Loader(config, caches, vocabulary)
    assert loader.statistics()["cut"] > 2
    side = "encoder_" if mode == "t5" else ""
    chains = list(read_chains(tmp_path / "data", "train"))
    whole = {prompt(chain.instruction, chain.input, template) for chain in chains}
    beginnings = {
        prompt(chain.instruction, chain.input[:end], template)
        for chain in chains
        for end in range(1, len(chain.input) + 1)
    }
    shown = set()
    for batch in map(loader.batch, range(loader.total_steps)):
        for row, parts in zip(batch[f"{side}tokens"], batch[f"{side}segments"], strict=True):
            texts = [vocabulary.decode(row[parts == part]) for part in range(1, parts.max() + 1)]
            shown |= {max((b for b in beginnings if text.startswith(b)), key=len, default=text) for text in texts}
    assert shown <= beginnings
    assert shown - whole


def test_what_is_left_out_is_said_with_a_length_that_holds_nearly_all(folder: Path) -> None:
    assert load(folder, "tokens").overlong_note is None
    loader = load(folder, "tokens", data__length=130, data__max_dropped=1.0)
    dropped = loader.statistics()["dropped"]
    note = loader.overlong_note or ""
    assert note.startswith(f"of 100 examples, {dropped} are longer than a row and left out, and 0 are cut; ")
    length = int(note.split("config.data.length = ")[1].split()[0])
    assert load(folder, "tokens", data__length=length).statistics()["dropped"] <= 1
    assert load(folder, "tokens", data__length=length - 1).statistics()["dropped"] > 1
    share = dropped / 100
    assert load(folder, "tokens", data__length=130, data__max_dropped=share).statistics()["dropped"] == dropped
    with pytest.raises(
        UserError, match=rf"length: 130: of 100 examples, {dropped} are .*max_dropped = {share - 0.01:g}"
    ):
        load(folder, "tokens", data__length=130, data__max_dropped=share - 0.01)


def test_rows_that_cannot_be(folder: Path) -> None:
    with pytest.raises(UserError, match=r"config\.data\.length: 4: no example of train_length1.* shortest takes"):
        load(folder, "tokens", data__length=4)
    with pytest.raises(UserError, match="multiple of data-parallel devices"):
        load(folder, "tokens", multiple=3)
    assert load(folder, "examples", multiple=8).rows_per_step % 8 == 0


def test_training_loads_neither_tensorflow_nor_seqio(folder: Path) -> None:
    """In a process of its own: the loader, and all that the trainer imports."""
    program = f"""
        import sys
        from pathlib import Path
        import coi_jax.train
        from tests.coi_jax.data.test_loader import load
        loader = load(Path({str(folder)!r}), "tokens")
        assert loader.batch(0)["tokens"].shape == (8, 256)
        print(sorted({{"tensorflow", "seqio", "tensorflow_datasets", "apache_beam"}} & set(sys.modules)))
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"JAX_PLATFORMS": "cpu", "PATH": "", "HOME": str(folder)},
        check=False,
    )
    assert (child.stdout.strip(), child.returncode) == ("[]", 0), child.stderr
