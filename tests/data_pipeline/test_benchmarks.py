import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import seqio

from coi_jax import evaluate
from coi_jax.chains.chain import JOINER, Chain
from coi_jax.chains.dataset import read_chains, read_manifest
from coi_jax.common import cli, files
from coi_jax.data.task_specs import evaluation_task
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline import benchmarks
from data_pipeline.tasks import seqio_tasks
from tests.helpers.token_caches import small_config, write_caches
from tests.helpers.trained_runs import make_run

SIFO = {
    "math": [
        {"id": 7, "instruction_1": "Add 2 and 3.", "answer_1": "5", "instruction_2": "Double it.", "answer_2": 10},
        {
            "id": 8,
            "instruction_1": "Add 1 and 1.",
            "answer_1": "2",
            "instruction_2": "Name both.",
            "answer_2": ["1", "2"],
        },
    ],
    "qa": [{"id": 7, "context": "Figs ripen in autumn.", "instruction_1": "When do figs ripen?", "answer_1": "autumn"}],
}
SEQEVAL = [{"instruction": "Sort the list, then count it.", "iteration": 2}]
COMPLEXBENCH = [
    {
        "main_id": 0,
        "instruction": "写一首诗。",
        "instruction_en": "Write a poem.",
        "composition_types": ["And"],
        "scoring_questions": [{"point_id": 0, "question": "Is it a poem?", "rule": None, "dep": []}],
    },
    {"main_id": 1, "instruction": "写一首诗。", "scoring_questions": []},
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Write a title in double angular brackets and no comma.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
        "kwargs": [{"num_words": None}, {}],
    },
    {
        "key": 1001,
        "prompt": "Answer in French.",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "fr"}],
    },
]


def write_copies(folder: Path) -> list[str]:
    """Copies of all benchmarks, in files as they are published; returns the options that name them."""
    for name, rows in SIFO.items():
        files.write_text(folder / "sifo" / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    files.write_json(folder / "seqEval.json", SEQEVAL)
    files.write_json(folder / "data_final.json", COMPLEXBENCH)
    files.write_text(folder / "input_data.jsonl", "".join(json.dumps(row) + "\n" for row in IFEVAL))
    return [
        f"--sifo={folder}/sifo",
        f"--seqeval={folder}/seqEval.json",
        f"--complexbench={folder}/data_final.json",
        f"--ifeval={folder}/input_data.jsonl",
    ]


def run(*arguments: str) -> int:
    return cli.run(lambda: benchmarks.main(arguments))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of all benchmarks."""
    folder = tmp_path_factory.mktemp("benchmarks")
    assert run(*write_copies(folder), f"--out={folder}/data") == 0
    return folder / "data"


def test_every_row_of_every_benchmark_is_a_chain(dataset: Path) -> None:
    manifest = read_manifest(dataset)
    assert manifest["counts"] == {
        "complexbench": {"1": 2},
        "ifeval": {"1": 2},
        "seqeval": {"1": 1},
        "sifo": {"1": 1, "2": 2},
    }
    assert manifest["rejected"] == {}


def test_the_instructions_of_sifo_are_steps_with_their_answers(dataset: Path) -> None:
    chains = {chain.id: chain for chain in read_chains(dataset, "sifo")}
    assert list(chains) == ["sifo/math#7", "sifo/math#8", "sifo/qa#7"]
    first = chains["sifo/math#7"]
    assert (first.input, first.instruction, first.outputs) == ("", f"Add 2 and 3.{JOINER}Double it.", ("5", "10"))
    assert chains["sifo/math#8"].outputs == ("2", "1, 2")
    assert chains["sifo/qa#7"].input == "Figs ripen in autumn."
    assert {chain.steps[-1].task for chain in chains.values()} == {"math", "qa"}


def test_what_a_judge_or_a_check_needs_stays_with_the_row(dataset: Path) -> None:
    poem, untranslated = read_chains(dataset, "complexbench")
    assert (poem.instruction, poem.outputs) == ("Write a poem.", (None,))
    assert untranslated.instruction == "写一首诗。"
    assert poem.details is not None
    assert poem.details["scoring_questions"] == COMPLEXBENCH[0]["scoring_questions"]
    (listed,) = read_chains(dataset, "seqeval")
    assert (listed.instruction, listed.outputs, listed.details) == (
        SEQEVAL[0]["instruction"],
        (None,),
        {"iteration": 2},
    )
    title, _ = read_chains(dataset, "ifeval")
    assert title.details == {"instruction_id_list": IFEVAL[0]["instruction_id_list"], "kwargs": [{}, {}]}
    assert Chain.from_row(title.row()) == title


def test_each_is_a_task_of_seqio(dataset: Path) -> None:
    config = small_config(dataset.parent)
    names = seqio_tasks.register(config, ByteVocabulary())
    assert names == ["sifo", "seqeval", "complexbench", "ifeval"]
    task = seqio.get_mixture_or_task("ifeval")
    (row, _) = task.get_dataset(split="ifeval", shuffle=False).as_numpy_iterator()
    target = seqio_tasks.to_answer("", {"chain": row["chain"].decode()}, is_target=True)
    (metric,) = task.metric_fns
    assert metric([target], ["<<Figs>>"])["all_instructions_followed"] == 100
    assert metric([target], ["Figs, pears"])["instructions_followed"] == 0


def test_answers_are_scored_and_a_set_without_references_is_named(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = make_run(tmp_path, examples=1)
    config = run_folder.load_config()
    shutil.copytree(dataset, tmp_path / "benchmarks")
    data = config.data.model_copy(update={"folder": str(tmp_path / "benchmarks")})
    write_caches(
        config.model_copy(update={"data": data}),
        [evaluation_task(config.model_copy(update={"data": data}), name) for name in benchmarks.BENCHMARKS],
    )
    options = [f"--dataset={tmp_path}/benchmarks", f"--tasks={','.join(benchmarks.BENCHMARKS)}"]
    assert cli.run(lambda: evaluate.main([f"--workdir={run_folder.path}", *options])) == 0
    printed = capsys.readouterr()
    assert {name for name in benchmarks.BENCHMARKS if f"{name}: has no reference outputs" in printed.err} == {
        "seqeval",
        "complexbench",
        "ifeval",
    }
    assert "mean over tasks" in printed.out
    results = {
        name: files.read_json(run_folder.path / "eval" / name / "results.json") for name in benchmarks.BENCHMARKS
    }
    assert set(results["seqeval"]["scores"]) == {"well_formed"}
    assert "all_instructions_followed" in results["ifeval"]["scores"]
    assert set(results["sifo"]["by_task"]["tasks"]) == {"math", "qa"}
    assert "sifo_depth" in results["sifo"]["by_task"]["mean"]
    (line, _) = files.read_jsonl(run_folder.path / "eval" / "ifeval" / "predictions.jsonl")
    assert {"all_instructions_followed", "instructions_followed"} <= set(line["scores"])


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("sifo", {"id": 1, "answer_1": "5"}, "no key 'instruction_1'"),
        ("sifo", {"instruction_1": "Add.", "answer_1": None}, "'answer_1' is no text"),
        ("sifo", {"instruction_1": " ", "answer_1": "5"}, "'instruction_1' is no text"),
        ("sifo", {"instruction_1": "Add.", "answer_1": "5", "context": 3}, "'context' is no text"),
        ("seqeval", {"instruction": ["Sort."]}, "'instruction' is no text"),
        ("complexbench", {"instruction": "Write."}, "'scoring_questions' is no list"),
        ("ifeval", {**IFEVAL[0], "kwargs": [{}]}, "'instruction_id_list' and 'kwargs' are no lists of equal lengths"),
        ("ifeval", {**IFEVAL[0], "instruction_id_list": ["punctuation:no_comma", "x:y"]}, "instruction x:y is unknown"),
        (
            "ifeval",
            {**IFEVAL[1], "instruction_id_list": ["keywords:existence"]},
            "argument keywords of keywords:existence is missing",
        ),
        (
            "ifeval",
            {**IFEVAL[0], "instruction_id_list": [{"x": 1}, "punctuation:no_comma"]},
            "instruction {'x': 1} is unknown",
        ),
        *(
            (
                "ifeval",
                {**IFEVAL[1], "instruction_id_list": [id], "kwargs": [given]},
                f"argument {name} of {id} is {given[name]}, by which nothing can be verified",
            )
            for id, name, given in (
                ("length_constraints:number_words", "num_words", {"num_words": -5, "relation": "at least"}),
                ("length_constraints:number_words", "relation", {"num_words": 5, "relation": "foo"}),
                ("keywords:forbidden_words", "forbidden_words", {"forbidden_words": ["["]}),
                ("keywords:existence", "keywords", {"keywords": ["a", True]}),
                ("keywords:existence", "keywords", {"keywords": "abc"}),
                ("language:response_language", "language", {"language": "kn"}),
                (
                    "length_constraints:nth_paragraph_first_word",
                    "nth_paragraph",
                    {"num_paragraphs": 2, "nth_paragraph": "1", "first_word": "so"},
                ),
            )
        ),
    ],
)
def test_rows_that_cannot_be_used_are_kept_with_their_reason(
    tmp_path: Path, name: str, row: dict[str, Any], reason: str
) -> None:
    good = {"sifo": SIFO["math"], "seqeval": SEQEVAL, "complexbench": COMPLEXBENCH, "ifeval": IFEVAL}[name][0]
    files.write_text(tmp_path / "rows.jsonl", f"{json.dumps(good)}\n{json.dumps(row)}\n")
    assert run(f"--{name}={tmp_path}/rows.jsonl", f"--out={tmp_path}/data") == 0
    (rejected,) = files.read_jsonl(tmp_path / "data" / "rejected.jsonl")
    assert rejected == {"reason": reason, "file": "rows.jsonl", "number": 1, "row": row}


def test_a_repeated_id_is_rejected(tmp_path: Path) -> None:
    files.write_json(tmp_path / "rows.json", [IFEVAL[0], IFEVAL[0], 3])
    assert run(f"--ifeval={tmp_path}/rows.json", f"--out={tmp_path}/data") == 0
    assert set(read_manifest(tmp_path / "data")["rejected"]) == {
        "id ifeval/rows#1000 occurs more than once",
        "not a JSON object",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no row can be used (it has none)"),
        ('[{"text": "x"}]', "no row can be used ('prompt' is no text)"),
        ('[{"key": 1}', "cut short"),
        ("key,prompt\n", "not JSON"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    assert run(f"--ifeval={tmp_path}/rows.json", f"--out={tmp_path}/data") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_missing_file_and_no_option_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"--sifo={tmp_path}/none", f"--out={tmp_path}/data") == 2
    assert "--sifo" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(f"--out={tmp_path}/data")
    assert "name a copy of a benchmark: --sifo, --seqeval, --complexbench, --ifeval" in capsys.readouterr().err
