"""Builds with endpoints that decline calls, and with sources of which nothing can be used."""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from benchmarks import build_speed
from coi_jax.chains.dataset import read_manifest
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from data_pipeline.build import __main__ as build
from data_pipeline.build import llm_stages
from data_pipeline.build.asking import ask_transform
from data_pipeline.build.asking.ask_transform import EndpointAnswerer
from data_pipeline.build.build_job import RUNNER
from data_pipeline.build.config_loading import load
from data_pipeline.build.engine.stage_runner import Incomplete, Stage, StageRunner, rows_of
from data_pipeline.build.pipeline import Payment
from data_pipeline.build.review import build_report, model_quality
from data_pipeline.build.review.stage_accuracy import score
from data_pipeline.build.run_modes import _ask_in_batch
from tests.helpers.builds import endpoint, flags, run
from tests.helpers.fake_llm import question, reader
from tests.helpers.llm_clients import config
from tests.helpers.scripted_server import Response, completion, refusal, serving

SEEDS = [
    {"instruction": f"{words} Mind {number}.", "input": f"The ferry {number} left.", "output": f"It left at {number}."}
    for number, words in enumerate(["Shorten the text.", "Give it a title.", "Say it otherwise.", "Ask about it."])
]
SHORT = {"seeds.test_share": 0.0, "joins.lengths": "()", "variants": "()", "opinion.enabled": "False"}


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run asks with a client of its own, as each command line does."""
    monkeypatch.setattr(ask_transform, "shared", lambda _, make: make())


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SEEDS), encoding="utf-8")
    return path


def command(out: Path, url: str, seeds: Path, *more: str, **overrides: Any) -> list[str]:
    source = f"--source=alpaca:{seeds}"
    argv = flags(out, None, source, *more, **endpoint(url) | SHORT | {"llm": "endpoint"} | overrides)
    return ["--config=configs/build/super_ni.py", *argv[1:]]


def words(request: dict[str, Any]) -> str:
    return " ".join(question(request)[1].values())


def test_an_endpoint_that_declines_all_stops_the_build_and_is_asked_again_when_it_is_mended(
    seeds: Path, tmp_path: Path
) -> None:
    mended: list[bool] = []

    def answer(request: dict[str, Any], _: int) -> Response:
        return completion(reader()(request)) if mended else refusal(400, "max_tokens is unknown to this model")

    with serving(answer) as server:
        argv = command(tmp_path / "out", server.url, seeds)
        with pytest.raises(UserError, match=r"declined 4 of 4 calls: .*max_tokens is unknown.*max_completion_tokens"):
            run(argv)
        assert not (tmp_path / "out").exists()
        mended.append(True)
        assert run(argv) == 0
    assert read_manifest(tmp_path / "out")["counts"]["train"]


def test_an_endpoint_whose_replies_are_no_completions_is_asked_again_when_it_is_mended(
    seeds: Path, tmp_path: Path
) -> None:
    mended: list[bool] = []

    def answer(request: dict[str, Any], _: int) -> Response:
        return completion(reader()(request)) if mended else Response(200, b"{}")

    with serving(answer) as server:
        argv = command(tmp_path / "out", server.url, seeds, **{"endpoint.attempts": 2})
        with pytest.raises(UserError, match=r"4 questions without an answer: .*no message.*, after 2 attempts"):
            run(argv)
        assert not (tmp_path / "out").exists()
        mended.append(True)
        assert run(argv) == 0
    assert read_manifest(tmp_path / "out")["counts"]["train"]


def test_no_row_is_lost_where_one_reply_is_no_completion(declining: "Declining") -> None:
    def answer(request: dict[str, Any], _: int) -> Response:
        is_lost = "given text 2" in words(request) and not declining.is_mended
        return Response(200, b"{}") if is_lost else completion(reader()(request))

    with serving(answer) as server:
        with pytest.raises(Incomplete) as stopped:
            declining.stage(server.url)
        assert list(stopped.value.reasons.values()) == [1]
        declining.is_mended = True
        assert declining.stage(server.url).counts == {"out": 4, "rejected": 0, "unanswered": 0}
        assert len(server.requests) == 4 + 1


class Declining:
    """An endpoint that declines one of four calls, until it is mended; makes a stage that asks it."""

    def __init__(self, folder: Path, rows: int = 4) -> None:
        self.folder, self.is_mended = folder, False
        self.given = build_speed.stage_of(str(folder), rows)

    def answer(self, request: dict[str, Any], _: int) -> Response:
        is_declined = "given text 2" in words(request) and not self.is_mended
        return refusal(400, "it is too long") if is_declined else completion(reader()(request))

    def stage(self, url: str, share: float = 0.5, declined: dict[str, str] | None = None) -> Stage:
        """The stage; with calls that were declined in a batch, it is made from the store alone."""
        entry = llm_stages.find("instructions")
        assert entry
        store, spending = (str(self.folder / name) for name in ("replies.sqlite", "spending"))
        offline = declined is not None
        make = functools.partial(EndpointAnswerer, config(url, attempts=1), store, spending, None, offline, declined)
        return StageRunner(str(self.folder), [RUNNER]).run(
            "instructions",
            None,
            [self.given],
            lambda start: llm_stages.ask(entry, start | rows_of(self.given), ("test", make), None),
            declined_share=share,
        )


@pytest.fixture
def declining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declining:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return Declining(tmp_path)


OVERFLOW = "request (9249 tokens) exceeds the available context size (4096 tokens), try increasing it"
WEAK_REPLIES = (  # as a model of 135M parameters gives them
    '{"instruction": "Write the last word twice."}',
    'Sure! The object is:\n\n```json\n{"instruction": "Say it again."}\n```\nI hope that this helps.',
    "{text}\n85e2d2a4b5a0 output}",  # until it is told what is wrong with it
    "The first gives a sentence of news, which can be put as a headline.",
    '{"reason": "The second gives a question that requires a lot of thinking."}',
)


def weak_model(request: dict[str, Any], _: int) -> Response:
    number = next(n for n in range(6) if f"given text {n}" in words(request))
    if number == 5:
        return refusal(400, OVERFLOW)
    is_repair = "That cannot be used" in request["messages"][-1]["content"]
    return completion(WEAK_REPLIES[0 if number == 2 and is_repair else number])


def test_it_is_counted_what_the_replies_of_a_weak_model_were_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    asking = Declining(tmp_path, 6)
    with serving(weak_model) as server:
        stage = asking.stage(server.url)
    (row,) = found = model_quality.replies([stage])
    assert row == {"stage": "instructions", "questions": 6, "at_once": 2, "repaired": 1, "unusable": 2, "declined": 1}
    reasons = {reason.partition(":")[0] for _, reason, _ in build_report.reasons([stage])}
    assert reasons == {"not of the wanted form", "declined"}
    lines = model_quality.lines(found, [])
    assert lines[1].split("  ")[0] == "stage"
    assert lines[2].split() == ["instructions", "6", "2", "1", "2", "1"]


def test_a_model_is_compared_with_the_truth_where_it_is_computed() -> None:
    asked = [{"stage": "checks-2", "questions": 4, "at_once": 4, "repaired": 0, "unusable": 0, "declined": 0}]
    compared = [score("checks, 2 steps", [(True, True), (True, False), (False, True), (False, False)]).row()]
    assert model_quality.lines(asked, compared)[-1].split()[-4:] == ["4", "50.0%", "50.0%", "50.0%"]
    assert model_quality.lines(asked, [score("opinions", []).row()])[-1].startswith("checks-2")
    assert not model_quality.lines([], compared)


def test_attempts_without_a_reply_are_counted_by_reason() -> None:
    (line,) = model_quality.failure_line({"status 500 (broken)": 2, "no reply within 120 s": 1200})
    assert line == "1,202 attempts got no reply and were made again, most of them (1,200): no reply within 120 s"
    assert not model_quality.failure_line({})


def test_a_build_says_how_many_replies_were_asked_for_and_how_many_were_there() -> None:
    assert model_quality.reply_line({"stored": 1200, "asked": 1}) == ["1 reply asked for, 1,200 taken from the store"]
    assert not model_quality.reply_line({})


def test_what_was_declined_is_asked_again_and_what_depends_on_it_made_anew(declining: Declining) -> None:
    with serving(declining.answer) as server:
        first = declining.stage(server.url)
        assert first.counts == {"out": 3, "rejected": 1, "unanswered": 0, "declined": 1}
        again = declining.stage(server.url)
        assert (again.counts, again.identity) == (first.counts, first.identity)
        asked = len(server.requests)
        declining.is_mended = True
        mended = declining.stage(server.url)
        assert mended.counts == {"out": 4, "rejected": 0, "unanswered": 0}
        assert mended.identity != first.identity
        assert declining.stage(server.url).identity == mended.identity
        assert len(server.requests) == asked + 1


def test_a_declined_call_of_a_batch_is_a_rejected_row(declining: Declining) -> None:
    folder, payment = declining.folder, Payment(str(declining.folder / "spending"), None)
    with serving(declining.answer) as server:
        fields = {"llm": "endpoint", "store": str(folder / "replies.sqlite"), "endpoint.model": "m"}
        opinion = {"opinion.enabled": "False", "endpoint.base_url": server.url}
        settings = load("configs/build/procedural.py", fields | opinion)
        with pytest.raises(Incomplete) as stopped:
            declining.stage(server.url, declined={})
        declined = _ask_in_batch(settings, stopped.value, payment, epath.Path(folder / "batches"), 0.01)
        assert [reason for reason in declined.values() if "it is too long" in reason] == list(declined.values())
        made = declining.stage(server.url, declined=declined)
    assert made.counts == {"out": 3, "rejected": 1, "unanswered": 0, "declined": 1}


def test_a_complete_stage_stays_where_what_was_declined_cannot_be_asked(
    declining: Declining, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(declining.answer) as server:
        first = declining.stage(server.url)
    assert declining.stage(server.url) == first  # nobody answers any more
    assert "note: stage instructions stays without the answers" in capsys.readouterr().err
    assert len(list(first.read())) == 3


def test_the_share_of_calls_that_may_be_declined_is_the_configs(declining: Declining) -> None:
    with serving(declining.answer) as server:
        with pytest.raises(UserError, match=r"declined 1 of 4 calls: .*it is too long"):
            declining.stage(server.url, share=0.2)
        assert declining.stage(server.url, share=0.25).counts["declined"] == 1


ROWS: dict[str, Any] = {
    "questions.jsonl": {"question": "When?", "context": "In 2000.", "answer": "2000.", "category": "closed_qa"},
    "dolly.jsonl": {"instruction": "When?", "context": "In 2000.", "response": "", "category": "closed_qa"},
    "sharegpt.jsonl": {"id": "0", "conversations": [{"from": "human", "value": "Name a fruit."}]},
    "self_instruct.jsonl": {"instruction": "Add.", "instances": [{"input": "1 2", "output": 3}]},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_source_of_which_no_row_can_be_used_is_an_error_that_names_its_keys(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(ROWS[name]) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as stopped:
        run(command(tmp_path / "out", "http://127.0.0.1:9", path))
    assert str(path) in str(stopped.value)
    assert ", ".join(ROWS[name]) in str(stopped.value)
    assert not (tmp_path / "out").exists()


def test_seeds_that_are_all_left_out_are_an_error_with_the_reason(seeds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seeds\.sources: no row is left.*longer than longest_words"):
        run(command(tmp_path / "out", "http://127.0.0.1:9", seeds, **{"seeds.longest_words": 1}))


def test_a_build_without_a_chain_of_several_steps_ends_with_the_reason_and_keeps_what_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: dict[str, Any], _: int) -> Response:
        no = {"reason": "The second needs another text.", "composable": False}
        return completion(json.dumps(no) if question(request)[0] == "check" else reader()(request))

    out = tmp_path / "out"
    with serving(answer) as server:
        argv = flags(out, None, **endpoint(server.url) | SHORT | {"llm": "endpoint", "seeds.instances": 1})
        assert cli.run(lambda: run(argv)) == cli.EXIT_USER_ERROR
    (line,) = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    reason = "all rows are rejected, most of them .*: not composable"
    assert re.search(rf"no chain of several steps is left: {reason}; the single steps are in {out}, the report", line)
    counts = read_manifest(out)["counts"]
    assert set(counts["train"]) == {"1"}
    assert (tmp_path / "out.work" / "report.html").exists()


def test_a_build_whose_rules_allow_no_pair_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no chain of several steps is left: the rules allow no pair of its tasks; "):
        run(flags(tmp_path / "out", None, "--source=procedural:reverse_words", **SHORT))


def test_a_dry_run_whose_rules_allow_no_pair_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flags(tmp_path / "out", None, "--source=procedural:reverse_words", "--dry_run", **SHORT)) == 0
    note = "note: no chain of several steps can come of it: the rules allow no pair of its tasks, whose categories are "
    assert note in capsys.readouterr().err


def test_a_dry_run_needs_neither_model_nor_key(seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COI_LLM_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert build.main(command(tmp_path / "out", "http://127.0.0.1:9", seeds, "--dry_run", "--json")) == 0
    assert "COI_LLM_MODEL" not in os.environ


def test_a_missing_file_is_named_before_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COI_LLM_MODEL", raising=False)
    with pytest.raises(UserError, match=r"missing\.json"):
        build.main(command(tmp_path / "out", "http://127.0.0.1:9", tmp_path / "missing.json"))


def test_a_store_where_no_folder_can_be_is_the_users_mistake(declining: Declining) -> None:
    (declining.folder / "spending").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match=r"budget: .*/spending: cannot be written"):
        declining.stage("http://127.0.0.1:9")
    (declining.folder / "spending").unlink()
    (declining.folder / "replies.sqlite").mkdir()
    with pytest.raises(UserError, match=r"store: .*replies\.sqlite"):
        declining.stage("http://127.0.0.1:9")


@pytest.mark.parametrize("option", ["--poll", "--budget"])
def test_an_option_that_is_no_number_is_refused(
    seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        run(command(tmp_path / "out", "http://127.0.0.1:9", seeds, "--batch", f"{option}=nan"))
    assert capsys.readouterr().err.startswith(f"error: argument {option}: 'nan' should be a number, as 0.5")


def test_a_pause_or_a_budget_below_0_is_refused(seeds: Path, tmp_path: Path) -> None:
    for option in ("poll", "budget"):
        with pytest.raises(UserError, match=f"{option}: -1"):
            run(command(tmp_path / "out", "http://127.0.0.1:9", seeds, "--batch", f"--{option}=-1"))
