"""Steps of answers without labels, marked by a model behind a real server on loopback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coi_jax import spans
from coi_jax.common import cli, files
from coi_jax.evaluation import predictions
from coi_jax.evaluation.predictions import PREDICTIONS, Prediction
from coi_jax.evaluation.results import make_results
from coi_jax.judging.span_scores import score_span
from coi_jax.judging.spans import Span, occurs
from coi_jax.reporting import table3
from coi_jax.reporting.run_records import read
from coi_jax.reporting.table4 import show_interval
from tests.helpers.configs import quickstart_config
from tests.helpers.fake_llm import FENCED
from tests.helpers.paths import CONFIGS
from tests.helpers.scripted_server import Response, completion, serving
from tests.helpers.token_caches import make_chain

CHAINS = tuple(make_chain(number, 2) for number in range(6))
FIRST, SECOND = zip(*(chain.outputs for chain in CHAINS), strict=True)
# A text with both outputs and no label, one with the first alone, one with labels, nothing, and prose.
TEXTS = (
    f"Sure.\n{FIRST[0]}\nSo it is {SECOND[0]}.",
    f"{FIRST[1]}, and I stop.",
    CHAINS[2].targets,
    " ",
    f"{FIRST[4]} {SECOND[4]}",
    f"I think {SECOND[5]}",
)


def marks(request: dict[str, Any]) -> dict[str, Any]:
    """Quotes what an answer has; of the fifth what stands nowhere in it; the last one's span is called wrong."""
    asked = {name: text for name, _, text in FENCED.findall(request["messages"][1]["content"])}
    number = next(number for number, text in enumerate(TEXTS) if text == asked["answer"])
    found = [output if output in asked["answer"] else None for output in (FIRST[number], SECOND[number])]
    if number == 4:
        found[0] = f"a mended {FIRST[4]}"
    return {
        f"step_{step}": {"span": span, "correct": span is not None and number != 5}
        for step, span in enumerate(found, 1)
    }


def answering(reply: Callable[[dict[str, Any]], Any] = marks) -> Callable[[dict[str, Any], int], Response]:
    return lambda request, _: completion(json.dumps(reply(request)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("COI_LLM_MODEL", "m")
    config = quickstart_config({"arm": "base", "evaluation.tests": ("coi2_test",)})
    files.write_json(tmp_path / "base" / "config.json", config.model_dump(mode="json"))
    answer_with(tmp_path / "base", TEXTS)
    return tmp_path / "base"


def answer_with(run: Path, texts: tuple[str, ...]) -> None:
    """Writes answers and their results, as an evaluation does."""
    folder = run / "eval" / "coi2_test"
    answers = [Prediction(chain.id, text, True) for chain, text in zip(CHAINS, texts, strict=True)]
    rows = [answer.row(chain, {}) for answer, chain in zip(answers, CHAINS, strict=True)]
    files.write_text(folder / PREDICTIONS, "".join(json.dumps(row) + "\n" for row in rows))
    names = ("run", "checkpoint", "dataset", "source", "test_set")
    provenance = dict.fromkeys(names, "x")
    scored = make_results("coi2_test", "base", CHAINS, answers, resamples=10, seed=0, provenance=provenance)
    files.write_json(folder / "results.json", scored)
    assert list(predictions.read(folder)) == answers


def mark(run: Path, *options: str, url: str = "http://127.0.0.1:9/v1") -> int:
    fixed = [f"--workdir={run}", "--tasks=coi2_test", f"--config={CONFIGS / 'judge/spans.py'}"]
    fixed += [f"--config.endpoint.base_url={url}", f"--config.store={run.parent / 'replies.sqlite'}"]
    return cli.run(lambda: spans.main([*fixed, *options]))


def found(run: Path) -> Any:
    return files.read_json(run / "eval" / "coi2_test" / "spans.json")


@pytest.fixture
def url() -> Iterator[str]:
    with serving(answering()) as served:
        yield served.url


def test_a_span_counts_where_it_occurs_and_is_not_called_wrong(run: Path, url: str) -> None:
    assert mark(run, url=url) == 0
    values = {name: score["value"] for name, score in found(run)["scores"].items()}
    sixth = 100 / 6
    # First steps of 0, 1, 2; that of 4 occurs nowhere, the answer of 5 has none. Second steps of 0, 2, 4, and 5's.
    assert values["step1_span_rouge_l"] == pytest.approx(3 * sixth)
    assert values["step1_span_found"] == pytest.approx(3 * sixth)
    assert values["step2_span_rouge_l"] == pytest.approx(3 * sixth)
    assert values["step2_span_rouge_l_unjudged"] == values["step2_span_found"] == pytest.approx(4 * sixth)
    assert [found(run)[key] for key in ("examples", "asked", "labelled", "empty", "unusable")] == [6, 4, 1, 1, 0]


def test_the_same_command_asks_nothing_twice_and_gives_the_same(run: Path) -> None:
    with serving(answering()) as served:
        assert mark(run, url=served.url) == 0
        before = found(run)
        assert len(served.requests) == 4
        assert mark(run, url=served.url) == 0
        assert len(served.requests) == 4
        assert mark(run, "--config.asks_about_labelled", url=served.url) == 0
        assert len(served.requests) == 5
    assert found(run)["asked"] == 5
    assert found(run)["scores"] == before["scores"]


def test_a_spent_budget_is_one_line_and_a_larger_one_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(answering()) as served:
        assert mark(run, "--budget=0.0004", "--config.endpoint.concurrency=1", url=served.url) == 2
        assert "--budget: spent: " in capsys.readouterr().err
        assert len(served.requests) < 4
        assert not (run / "eval" / "coi2_test" / "spans.json").exists()
        assert mark(run, "--budget=1", url=served.url) == 0
        assert len(served.requests) == 4


def test_nonsense_leaves_an_answer_out_and_the_rest_goes_on(run: Path) -> None:
    def reply(request: dict[str, Any]) -> Any:
        marked = marks(request)
        return {"step_1": marked["step_1"]} if marked["step_2"]["span"] is None else marked

    with serving(answering(reply)) as served:
        assert mark(run, url=served.url) == 0
    assert (found(run)["unusable"], found(run)["examples"]) == (1, 5)
    (left_out,) = [row for row in found(run)["answers"] if "fault" in row]
    assert left_out["id"] == CHAINS[1].id
    assert "step_2: Field required" in left_out["fault"]


def test_a_model_that_says_only_nonsense_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(answering(lambda request: {})) as served:
        assert mark(run, url=served.url) == 2
    error = capsys.readouterr().err
    assert "endpoint.model: m: no reply could be used" in error
    assert error.count("error: ") == 1
    assert not (run / "eval" / "coi2_test" / "spans.json").exists()


def test_answers_that_were_not_scored_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "eval" / "coi2_test" / PREDICTIONS
    path.write_text(path.read_text().replace("I stop", "I go on"))
    assert mark(run) == 2
    assert "are not those that were scored; run python -m coi_jax.evaluate" in capsys.readouterr().err
    path.unlink()
    assert mark(run) == 2
    assert "are not there, or not scored yet" in capsys.readouterr().err


def test_table_3_shows_both_kinds_of_steps_and_names_them(run: Path, url: str, tmp_path: Path) -> None:
    assert mark(run, url=url) == 0
    records = read([run])
    table = table3.make_table(records)
    labelled, marked = table.sections.values()
    assert [row[2] for row in marked[1:]] == [
        row[2] for row in table3.make_grid(records, show_interval, "span_rouge_l")[1:]
    ]
    assert [row[2].split()[0] for row in labelled[1:]] != [row[2].split()[0] for row in marked[1:]]
    (first, *_) = [cell for cell in table.cells if cell["metric"] == "step1_span_rouge_l"]
    assert first["sources"][0]["spans"]["judge"] == "m"
    assert not any("spans" in cell["sources"][0] for cell in table.cells if cell["metric"] == "step1_rouge_l")
    assert "Spans of base, seed 0, on coi2_test: 4 answers marked by m, 1 by their labels, of 6; " in "\n".join(
        table.notes
    )


def test_spans_of_other_answers_are_left_out_with_a_reason(run: Path, url: str) -> None:
    assert mark(run, url=url) == 0
    answer_with(run, (*TEXTS[:-1], "another"))
    records = read([run])
    assert "spans.json: is of other answers than results.json" in str(records.damaged[0])
    assert [list(table3.make_table(records).sections)] == [[table3.KINDS["rouge_l"]]]
    path = run / "eval" / "coi2_test" / "spans.json"
    path.write_text(path.read_text().replace('"labelled": 1', '"labelled": 2'))
    assert "was changed since it was written; run python -m coi_jax.spans again" in str(read([run]).damaged[0])


@pytest.mark.parametrize(
    ("span", "text", "due"),
    [("a  b", "x a\nb y", True), ("a b", "a x b", False), ("A b", "a b", False), ("", "a", False), (" ", "a b", False)],
)
def test_occurrence_is_letter_by_letter_but_for_spaces(span: str, text: str, due: bool) -> None:
    assert occurs(span, text) is due
    assert score_span(Span(span=span, correct=True), span, text)["span_found"] == float(due)
