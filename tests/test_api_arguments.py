"""Wrong arguments of the Python API: each is a UserError of one line that names the argument, the value and the fix."""

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coi_jax
from coi_jax.chains import chain, dataset
from coi_jax.chains.chain import Chain, Step
from coi_jax.common.arguments import Count, checked
from coi_jax.config import run as run_config
from coi_jax.evaluation import bootstrap, comparison, scores
from coi_jax.inference import answering as answering_module
from coi_jax.inference.model import Model
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline.audit import measures
from data_pipeline.procedural import verification
from tests.helpers.paths import ROOT

api: Any = coi_jax  # as Any, since type checkers refuse what is given here
answering: Any = answering_module
PLACE = Path(tempfile.gettempdir()) / "of_no_run"
STEP = Step("Sort.", "a b")
CHAIN = Chain("1", "made", "b a", "Sort.", (STEP,))
MODEL = object.__new__(Model)  # never asked: its argument is checked with the others
CLOSED = (ROOT / "README.md").open()
CLOSED.close()
WRONG = [
    *(
        None,
        -1,
        0,
        10**13,
        float("nan"),
        1.5,
        True,
        b"x",
        "",
        "x",
        "\ud800",
        "\0",
        "1" * 5000,
        [],
        [None],
        [1],
        ["\ud800"],
    ),
    *(
        {},
        {1: 2},
        {"x": None},
        (),
        object,
        np.zeros(2),
        np.float64(1),
        PLACE,
        ROOT,
        ROOT / "README.md",
        len,
        range(3),
        CLOSED,
    ),
]


@dataclass(frozen=True)
class Call:
    """A function with arguments that it takes."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, **wrong: Any) -> None:
        result = self.function(**self.arguments | wrong)
        if isinstance(result, Iterator):
            list(result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("dataset") / "data"
    coi_jax.write_chains(path, {"test": [CHAIN]}, source="made", licence="none")
    return path


def score(**arguments: Any) -> Any:
    return api.score_predictions(**{"chains": [CHAIN], "texts": ["a b"], "resamples": 5} | arguments)


CALLS = {
    "Chain": Call(Chain, {**vars(CHAIN)}),
    "Step": Call(Step, {**vars(STEP)}),
    "Chain.from_row": Call(Chain.from_row, {"row": CHAIN.row()}),
    "join": Call(chain.join, {"instructions": ["Sort."]}),
    "render": Call(chain.render, {"outputs": ["a"]}),
    "parse": Call(chain.parse, {"text": "a"}),
    "is_well_formed": Call(chain.is_well_formed, {"text": "a", "length": 2}),
    "read_chains": Call(dataset.read_chains, {"folder": None, "split": "test", "length": 1}),
    "read_manifest": Call(dataset.read_manifest, {"folder": None, "field": "folder"}),
    "write_chains": Call(
        dataset.write_chains, {"folder": None, "splits": {"a": [CHAIN]}, "source": "b", "licence": "c"}
    ),
    "DatasetWriter": Call(dataset.DatasetWriter, {"folder": None, "source": "made", "overwrite": True}),
    "load_config": Call(
        run_config.load_config, {"path": ROOT / "configs" / "quickstart.py", "overrides": {}, "kept": None}
    ),
    "load_run": Call(coi_jax.load_run, {"folder": PLACE, "overrides": {}}),
    "load_weights": Call(
        coi_jax.load_weights, {"folder": str(PLACE), "workdir": PLACE, "config": "x", "overrides": {}}
    ),
    "score_predictions": Call(score, {"chains": [CHAIN], "texts": ["a b"], "resamples": 5, "seed": 0}),
    "ScoreKey": Call(scores.ScoreKey, {"kind": "rouge_l", "step": 1}),
    "Answer": Call(scores.Answer, {"references": ("a",), "prediction": "b", "published": None, "details": {}}),
    "Score": Call(scores.Score, {"key": "a", "title": "b", "function": scores.has_all_labels, "column": None}),
    "bootstrap": Call(bootstrap.bootstrap, {"values": np.zeros((2, 1)), "resamples": 5, "seed": 0}),
    "compare": Call(comparison.compare, {"a": [PLACE], "b": [PLACE], "tasks": ["x"], "resamples": 5, "seed": 0}),
    "audit": Call(
        measures.audit, {"folder": None, "vocabulary": ByteVocabulary(), "template": "alpaca", "limits": [512]}
    ),
    "execute": Call(verification.execute, {"instruction": "Sort.", "text": "b a"}),
    "follow": Call(verification.follow, {"instructions": ["Sort."], "text": "b a", "outputs": ["a b"]}),
    "verify": Call(verification.verify, {"chain": CHAIN}),
}


@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_given_is_used_or_refused_in_one_line(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, refused = CALLS[name], []
    for argument in call.arguments:
        for number, wrong in enumerate(WRONG):
            place = {"folder": tmp_path / f"{argument}{number}" if name == "write_chains" else folder}
            here = place if call.arguments.get("folder", "") is None else {}
            try:
                call(**here | {argument: wrong})
            except coi_jax.UserError as error:
                refused.append(str(error))
    assert refused
    assert "\n" not in "".join(refused).encode().decode()  # each can be printed


def test_every_documented_name_is_tried() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    listed = {name for members in re.findall(r"members: \[(.*?)\]", page) for name in members.split(", ")}
    results = {"AnswerStep", "Model", "UserError"}  # which a program is given
    schemas = {"RunConfig"}  # which pydantic checks
    assert listed | set(coi_jax.__all__) <= {*CALLS, "answer_chain"} | results | schemas


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no resamples": (lambda: score(resamples=0), "resamples: 0: should be greater than or equal to 1"),
    "negative resamples": (lambda: score(resamples=-1), "resamples: -1: should be greater than or equal to 1"),
    "resamples as text": (lambda: score(resamples="x"), "resamples: x: should be a valid integer"),
    "resamples as a float": (lambda: score(resamples=1e12), "resamples: 1000000000000.0: should be a valid integer"),
    "many resamples": (lambda: score(resamples=10**12), "resamples: 1000000000000: should be less than or equal to"),
    "negative seed": (lambda: score(seed=-1), "seed: -1: should be greater than or equal to 0"),
    "no text": (lambda: score(texts=[None]), "texts[0]: None: should be a valid string"),
    "no texts": (lambda: score(texts=None), "texts: None: should be an instance of Sequence"),
    "one text": (lambda: score(texts="a b"), "texts: a b: 'str' instances are not allowed as a Sequence value"),
    "a row as a chain": (lambda: score(chains=[{"id": "1"}]), "chains[0]: {'id': '1'}: should be an instance of Chain"),
    "a text of half a pair": (lambda: score(texts=["\ud800"]), "texts[0]: '\\ud800': holds half of a surrogate pair"),
    "another model": (lambda: api.answer_chain("runs/x", "Sort."), "model: runs/x: should be an instance of Model"),
    "no instruction": (
        lambda: api.answer_chain(MODEL, None),
        "instructions: None: should be a valid string or should be an instance of Sequence",
    ),
    "a number among instructions": (
        lambda: api.answer_chain(MODEL, ["Sort.", 2]),
        "instructions[1]: 2: should be a valid string",
    ),
    "an instruction of half a pair": (
        lambda: api.answer_chain(MODEL, "Sort \ud800."),
        "instructions: 'Sort \\ud800.': holds half of a surrogate pair",
    ),
    "no input": (lambda: api.answer_chain(MODEL, "Sort.", None), "input: None: should be a valid string"),
    "no input to generate": (lambda: answering.generate(MODEL, "Sort.", None), "input: None: should be a valid string"),
    "overrides as a list": (lambda: api.load_run("x", [1]), "overrides: [1]: should be a valid dictionary"),
    "a number as a folder": (
        lambda: api.load_run(1),
        "folder: 1: should be a valid string or should be an instance of PathLike",
    ),
    "nothing to parse": (lambda: api.parse(None), "text: None: should be a valid string"),
    "nothing to render": (lambda: coi_jax.render([]), "outputs: []: "),
    "steps as a list": (lambda: api.Chain("1", "a", "b", "c", [STEP]), "steps: [Step("),
    "no steps": (lambda: api.Chain("1", "a", "b", "c", ()), "steps: (): "),
    "length as text": (
        lambda: api.read_chains("x", "test", length="2"),
        "length: 2: should be a valid integer",
    ),
    "chains without a split": (
        lambda: api.write_chains("x", [CHAIN], source="a", licence="b"),
        "splits: [Chain(",
    ),
    "a split of rows": (
        lambda: api.write_chains("x", {"test": iter([CHAIN.row()])}, source="a", licence="b"),
        "chain: {'id': '1'",
    ),
    "an empty split": (
        lambda: api.write_chains("x", {"test": []}, source="a", licence="b"),
        "splits['test']: []: holds no chain; leave the split out",
    ),
    "no split": (lambda: api.write_chains("x", {}, source="a", licence="b"), "splits: {}: "),
    "a licence of half a pair": (
        lambda: api.write_chains("x", {"test": [CHAIN]}, source="a", licence="\ud800"),
        "licence: '\\ud800': holds half of a surrogate pair",
    ),
    "a folder of half a pair": (
        lambda: api.write_chains("\ud800", {"test": [CHAIN]}, source="a", licence="b"),
        "folder: '\\ud800': holds half of a surrogate pair",
    ),
    "no run to compare": (
        lambda: comparison.compare([], ["x"], resamples=1, seed=0),
        "a: []: ",
    ),
    "one run to compare": (
        lambda: comparison.compare("x", ["x"], resamples=1, seed=0),
        "a: x: 'str' instances are not allowed",
    ),
    "an unknown template": (
        lambda: measures.audit("x", ByteVocabulary(), "alpacca", [1]),
        "template: alpacca: unknown; did you mean 'alpaca'?",
    ),
    "fewer outputs": (
        lambda: verification.follow(["Sort."], "b a", []),
        "outputs: []: give one for each of the 1 instructions",
    ),
    "no examples": (lambda: bootstrap.bootstrap(np.zeros((0, 1)), 5, 0), "values: (0, 1): give at least one example"),
    "values without scores": (lambda: bootstrap.bootstrap(np.zeros(2), 5, 0), "values: array([0., 0.]): should be an"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_error_names_the_argument_the_value_and_the_fix(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[name]
    with pytest.raises(coi_jax.UserError, match=f"^{re.escape(message)}"):
        call()
    assert not list(tmp_path.iterdir())


def test_the_call_itself_is_as_always() -> None:
    @checked
    def repeat(text: str, times: Count = 2) -> str:
        """Repeat a text."""
        return text * times

    assert repeat("a") == repeat(text="a", times=np.int64(2)) == "aa"  # type: ignore[arg-type]
    assert (repeat.__name__, repeat.__doc__) == ("repeat", "Repeat a text.")
    with pytest.raises(TypeError, match="missing a required argument: 'text'"):
        repeat()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'often'"):
        repeat("a", often=1)  # type: ignore[call-arg]


def test_a_writer_that_is_not_open_is_refused(tmp_path: Path) -> None:
    writer = dataset.DatasetWriter(tmp_path / "data", "made")
    with pytest.raises(coi_jax.UserError, match=r"^writer: .*data: is not open; write in a block of `with"):
        writer.add("test", CHAIN)
    with writer:
        writer.add("test", CHAIN)
        writer.finish("none", {})
    with pytest.raises(coi_jax.UserError, match="is not open"):
        writer.add("test", CHAIN)
    with pytest.raises(coi_jax.UserError, match="is not open"):
        writer.finish("none", {})
    assert list(coi_jax.read_chains(tmp_path / "data", "test")) == [CHAIN]
