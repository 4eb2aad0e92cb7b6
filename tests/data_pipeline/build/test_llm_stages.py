"""The table of LLM stages: one more entry is one more stage everywhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from coi_jax.chains.dataset import read_manifest
from coi_jax.common import files
from data_pipeline.build import llm_stages
from data_pipeline.build.asking.questions import PROMPTS, Question
from data_pipeline.build.engine.stage_runner import Row
from data_pipeline.build.llm_stages import LLM_STAGES, LlmStage, Position
from data_pipeline.build.stages import opinions
from data_pipeline.build.stages.opinions import Judge, Judgement
from tests.helpers.builds import flags, run

PASSED = "a third opinion is good"


@dataclass(frozen=True)
class JudgeAgain(Judge):
    """Rejects every chain of two steps whose answer is long."""

    def computed_reply(self) -> Judgement:
        score: Literal[1, 5] = 5 if len(self.steps[-1][1].split()) < 6 else 1
        return Judgement(reason="By its length.", valid=score == 5, score=score, wrong_step=None)


def question(row: Row) -> Question:
    asked = opinions.question(row)
    assert isinstance(asked, Judge)
    return JudgeAgain(asked.input, asked.steps)


THIRD = LlmStage(
    name="third_opinions",
    position=Position.CHAINS,
    question_class=JudgeAgain,
    question=question,
    take=opinions.take,
    passed=PASSED,
    setting=lambda config: config.opinion.least_score,
)


def test_an_entry_is_a_stage_of_the_build_its_manifest_its_forecast_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llm_stages, "LLM_STAGES", (*LLM_STAGES, THIRD))
    argv = flags(tmp_path / "built", None, "--source=procedural:lists", **{"joins.lengths": "()", "variants": "()"})
    assert run([*argv, "--dry_run", "--json"]) == 0
    forecast = {line["stage"]: line for line in json.loads(capsys.readouterr().out)}
    assert forecast["third_opinions"]["most_calls"] == forecast["opinions"]["most_calls"] > 0
    assert run(argv) == 0
    stages = read_manifest(tmp_path / "built")["notes"]["stages"]
    assert stages["third_opinions"]["out"] + stages["third_opinions"]["rejected"] == stages["opinions"]["out"]
    rejected = [row["stage"] for row in files.read_jsonl(tmp_path / "built" / "rejected.jsonl")]
    assert rejected.count("third_opinions") == stages["third_opinions"]["rejected"] > 0
    assert PASSED in (tmp_path / "built.work" / "report.html").read_text(encoding="utf-8")


def test_names_are_unique_and_each_has_a_prompt() -> None:
    names = [stage.name for stage in LLM_STAGES]
    assert len(set(names)) == len(names)
    assert all((PROMPTS / f"{name}.toml").is_file() for name in llm_stages.prompts())


def test_a_stage_is_found_by_the_name_that_it_has_in_a_build() -> None:
    for stage in LLM_STAGES:
        assert llm_stages.find(stage.name) is stage
        assert llm_stages.find(f"{stage.name}-12") is stage
    assert llm_stages.find("pairs") is None
