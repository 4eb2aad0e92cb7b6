import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter, read_chains, write_chains
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import prompts, token_cache
from coi_jax.data.task_specs import TaskSpec, evaluation_task, training_tasks, validation_tasks
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_path
from data_pipeline import cache
from data_pipeline.tasks import cache_writer
from tests.helpers.paths import QUICKSTART
from tests.helpers.token_caches import make_chain, small_config, write_dataset
from tests.helpers.tokenizer_folders import FAMILIES

VALIDATION = {"every": 2, "split": "validation", "examples": None, "keep_best": True}
TRAINED = {"vocabulary__kind": "trained", "vocabulary__size": 290}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_dataset(tmp_path / "data", {1: 12, 2: 8})
    return small_config(tmp_path)


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's child, without the seconds that its TensorFlow takes to start."""

    def write(config: RunConfig, specs: list[TaskSpec], trained: Path | None) -> None:
        cache_writer.write(config, [spec.name for spec in specs], trained)

    monkeypatch.setattr(token_cache, "_write_in_child", write)


def test_what_is_written_is_what_the_reader_finds(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    caches = token_cache.open_or_write(config, training_tasks(config))
    assert [(len(opened), opened.rate) for opened in caches] == [(12, 12.0), (8, 8.0)]
    vocabulary = load_vocabulary(config)
    for opened, length in zip(caches, (1, 2), strict=True):
        for index, chain in enumerate(read_chains(config.data.folder, "train", length)):
            example = opened[index]
            assert example.chain == chain
            assert vocabulary.decode(example.targets) == chain.targets
    monkeypatch.setattr(token_cache, "_write_in_child", None)
    assert [opened.hash for opened in token_cache.open_or_write(config, training_tasks(config))] == [
        c.hash for c in caches
    ]
    for arm in ("coi1", "coi2"):  # their mixtures came with it
        changed = config.model_copy(update={"arm": arm})
        assert len(token_cache.open_or_write(changed, training_tasks(changed))) == 1


@pytest.mark.parametrize("lengths", [(1, 2), (1, 2, 3)])
def test_the_validation_split_is_no_part_of_the_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    """Of an arm, where the dataset has lengths of other arms or lacks them."""
    in_this_process(monkeypatch)
    with DatasetWriter(tmp_path / "data", "procedural") as writer:
        for number in range(4):
            for length in lengths:
                writer.add("train", make_chain(number, length))
                writer.add("validation", make_chain(number + 100, length))
        writer.finish("none", {})
    config = small_config(tmp_path, arm=f"coi{''.join(map(str, lengths))}", train__validation=VALIDATION)
    caches = token_cache.open_or_write(config, training_tasks(config))
    assert [(len(opened), opened.rate) for opened in caches] == [(4, 4.0)] * len(lengths)
    held_out = token_cache.open_or_write(config, validation_tasks(config, "validation"))
    assert [len(opened) for opened in held_out] == [4] * len(lengths)


def test_an_arm_on_a_variant_shares_the_single_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches of a released and of a built variant, the latter in one step whose length its chain says."""
    in_this_process(monkeypatch)
    with DatasetWriter(tmp_path / "data", "test") as writer:
        for number in range(6):
            for length in (1, 2, 3):
                chain = make_chain(number, length)
                writer.add("train", chain)
                if length > 1:
                    writer.add("irrelevant", replace(chain, steps=chain.steps[::-1]))
                    answer = (Step(chain.instruction, chain.outputs[-1]),)
                    writer.add("train_final", replace(chain, id=f"{chain.id}-final", steps=answer))
        writer.finish("none", {})
    plain = small_config(tmp_path)
    single = token_cache.open_or_write(plain, training_tasks(plain))[0]
    for arm, task, output in (
        ("coi12_irrelevant", "irrelevant_length2", 0),
        ("coi12_final", "train_final_length2", -1),
    ):
        config = small_config(tmp_path, arm=arm)
        caches = token_cache.open_or_write(config, training_tasks(config))
        assert [(cache.task, cache.rate) for cache in caches] == [("train_length1", 6.0), (task, 6.0)]
        assert caches[0].hash == single.hash
        for number in range(6):
            example, chain = caches[1][number], make_chain(number, 2)
            assert (example.chain.instruction, example.chain.outputs[-1]) == (chain.instruction, chain.outputs[output])
    old = small_config(tmp_path, arm="coi2", data__split="irrelevant")  # as it was asked for before
    assert token_cache.open_or_write(old, training_tasks(old))[0].task == "irrelevant_length2"
    assert len(list((tmp_path / "caches").glob("irrelevant_length2-*"))) == 1
    test = small_config(tmp_path, data__folder=str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"coi_final2_test: .*split test_final is unknown"):
        token_cache.open_or_write(test, [evaluation_task(test, "coi_final2_test")])


def test_a_trained_vocabulary_comes_from_the_data_or_from_a_run(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    config = small_config(tmp_path, **TRAINED)
    first = token_cache.open_or_write(config, training_tasks(config))[0]
    assert load_vocabulary(config).decode(first[0].targets) == first[0].chain.targets
    kept = tmp_path / "vocabulary.model"
    trained_path(config).rename(kept)
    tests = token_cache.open_or_write(config, [evaluation_task(config, "coi2_test")], kept)
    assert load_vocabulary(config, kept).decode(tests[0][0].targets) == tests[0][0].chain.targets
    assert not trained_path(config).exists()


@pytest.mark.parametrize(("family", "template"), [("llama3", "chat"), ("llama3", "plain"), ("qwen", "chat")])
def test_a_published_tokenizer_writes_the_same_from_its_folder_and_from_a_run(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, family: str, template: str
) -> None:
    in_this_process(monkeypatch)
    FAMILIES[family](tmp_path / "model")
    fields = {"vocabulary__kind": "tokenizer", "vocabulary__folder": str(tmp_path / "model")}
    config = small_config(tmp_path, **fields, data__template=template)
    vocabulary = load_vocabulary(config)
    opened = token_cache.open_or_write(config, training_tasks(config))[0]
    for index, chain in enumerate(read_chains(config.data.folder, "train", 1)):
        text = prompts.prompt(chain.instruction, chain.input, template)
        assert opened[index].inputs.tolist() == prompts.encode_prompt(text, template, vocabulary)
        assert opened[index].targets.tolist() == [*vocabulary.encode(chain.targets), vocabulary.eos_id]
    shutil.copytree(tmp_path / "model", tmp_path / "kept")
    shutil.rmtree(tmp_path / "model")
    assert token_cache.open_or_write(config, training_tasks(config), tmp_path / "kept")[0].folder == opened.folder
    cot = small_config(tmp_path, **fields, data__template=template, arm="cot")
    direct, shown = (
        token_cache.open_or_write(each, [evaluation_task(each, "coi2_test")], tmp_path / "kept")[0][0]
        for each in (config, cot)
    )
    assert len(shown.inputs) > 4 * len(direct.inputs)


def test_a_damaged_cache_is_written_again(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    folder = token_cache.open_or_write(config, training_tasks(config))[0].folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / token_cache.RECORDS).write_bytes(b"half")
    assert len(token_cache.open_or_write(config, training_tasks(config))[0]) == 12
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_two_writers_at_once_leave_one_whole_cache(config: RunConfig) -> None:
    threads = [threading.Thread(target=cache_writer.write, args=(config, ["train_length1"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder,) = Path(config.data.cache_folder).glob("train_length1-*")
    assert token_cache.open_cache(*token_cache.cache_folder(config, training_tasks(config)[0], load_vocabulary(config)))
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_an_interrupted_writer_leaves_nothing(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_writer, "_write_records", stop)
    with pytest.raises(KeyboardInterrupt):
        cache_writer.write(config, ["train_length1"])
    assert list(Path(config.data.cache_folder).iterdir()) == []


def test_a_bad_row_is_named_with_its_line(config: RunConfig) -> None:
    path = Path(config.data.folder) / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]))
    with pytest.raises(UserError, match=r"train\.jsonl:2: not JSON"):
        cache_writer.write(config, ["train_length1"])


def test_chains_without_outputs_are_no_training_data(tmp_path: Path) -> None:
    """They are test data: nothing says what the model should have written."""
    bare = Chain("bare", "s", "b a", "Sort.", (Step("Sort.", None),))
    splits = {"train": [make_chain(1, 1), bare, make_chain(1, 2)], "test": [bare]}
    write_chains(tmp_path / "data", splits, source="procedural", licence="none")
    config = small_config(tmp_path)
    with pytest.raises(UserError, match="1 chain of the task, as 'bare', lacks the output of a step"):
        cache_writer.write(config, ["train_length1"])
    assert cache_writer.write(config, ["train_length2", "proc1_test"])


def test_the_command_line(tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        f"--config={QUICKSTART}",
        "--config.arm=coi1",
        f"--config.data.folder={config.data.folder}",
        f"--config.data.cache_folder={config.data.cache_folder}",
        "--config.evaluation.tests=('proc2_test',)",
        "--config.vocabulary.kind=bytes",
    ]
    assert cache.main(arguments) == 0
    assert [Path(line).name.split("-")[0] for line in capsys.readouterr().out.split()] == [
        "train_length1",
        "proc2_test",
    ]
    assert cache.main([*arguments, "--json", "--tasks=proc2_test"]) == 0
    assert len(json.loads(capsys.readouterr().out)["caches"]) == 1
    assert cache.main([*arguments, "--json", "--tasks=coi6_test"]) == cli.EXIT_USER_ERROR
    assert json.loads(capsys.readouterr().out)["error"]["value"].endswith("test.jsonl")
    inside = [each for each in arguments if "cache_folder" not in each]
    with pytest.raises(UserError, match=r"^config\.data\.cache_folder: .* is the folder of a dataset"):
        cache.main([*inside, f"--config.data.cache_folder={config.data.folder}"])
    with pytest.raises(UserError, match="did you mean 'proc2_test'"):
        cache.main([*arguments, "--tasks=proc2_tests"])
    with pytest.raises(UserError, match=r"^--tasks: train_lenth1: unknown; did you mean 'train_length1'"):
        cache.main([*arguments, "--tasks=train_lenth1"])


def test_a_real_child_writes_and_relays(tmp_path: Path, config: RunConfig) -> None:
    """The one test that starts the child: its error comes back whole."""
    with pytest.raises(UserError, match=r"^config\.vocabulary\.size: 99999: the dataset has text for at most"):
        token_cache.open_or_write(
            small_config(tmp_path, **TRAINED | {"vocabulary__size": 99_999}), training_tasks(config)
        )
