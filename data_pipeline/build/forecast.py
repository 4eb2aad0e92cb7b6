"""Forecasts what a build would ask and pay, from its real seeds and pairs and a sample of its prompts.

Nothing is asked. How many candidates pass a check is not known beforehand, so there are two numbers: where all do, and
where as many do as people found valid in the paper (75 of 100 pairs, 59 of 100 triplets; section 3). What is in the
store already costs nothing, which a forecast leaves out.
"""

import collections
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coi_jax.llm.budget import Prices
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build import llm_stages
from data_pipeline.build.asking import questions
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.drafts import Draft, Seed
from data_pipeline.build.engine.stage_runner import Row, Stage
from data_pipeline.build.llm_stages import LlmStage, Position
from data_pipeline.text_tables import text_table

SAMPLE = 200  # prompts of each stage
HEADERS = ("stage", "calls", "at most", "tokens in", "out", "USD", "at most")


@dataclass(frozen=True)
class Line:
    """The questions of one stage: the expected and the largest number, and the mean tokens of a call."""

    stage: str
    calls: float
    most_calls: float
    prompt_tokens: float
    completion_tokens: float
    endpoint: EndpointConfig

    def cost(self, calls: float) -> float:
        """Return the US dollars of a number of calls."""
        prices = Prices(self.endpoint.prompt_price, self.endpoint.completion_price)
        return calls * prices.of_tokens(self.prompt_tokens, self.completion_tokens)


class Branching:
    """The categories that follow one another in pairs of tasks, from which the number of longer chains is estimated."""

    def __init__(self, pairs: Iterable[Draft]) -> None:
        self._followers: dict[str, set[str]] = collections.defaultdict(set)  # categories, by the task that they follow
        self._edges: dict[str, set[str]] = collections.defaultdict(set)  # between categories
        self._seconds: list[str] = []
        for draft in pairs:
            self._followers[draft.tasks[0]].add(draft.categories[1])
            self._edges[draft.categories[0]].add(draft.categories[1])
            self._seconds.append(draft.tasks[1])

    @property
    def mean(self) -> float:
        """Return the mean number of categories that follow the second task of a pair: candidates that a chain makes."""
        return statistics.fmean(len(self._followers.get(task, ())) for task in self._seconds) if self._seconds else 0.0

    def sequences(self, length: int) -> int:
        """Return the number of sequences of categories of some length."""
        ends = collections.Counter(self._edges.keys())
        for _ in range(length - 1):
            following: collections.Counter[str] = collections.Counter()
            for category, number in ends.items():
                for after in self._edges.get(category, ()):
                    following[after] += number
            ends = following
        return ends.total()


class Forecast:
    """Makes the lines of a build.

    Args:
      config: of the build.
      seeds: its first stage; tasks have no short instruction yet, so the definition stands for it.
      pairs: candidates of two steps, made of them.
    """

    def __init__(self, config: BuildConfig, seeds: Stage, pairs: Stage) -> None:
        self._config = config
        self._tasks = [Seed.from_row(row) for row in seeds.read()]
        self._definitions = {task.id: task.definition for task in self._tasks}
        self._pairs = pairs.counts["out"]
        self._branching = Branching(map(Draft.from_row, pairs.read()))
        ordered = sorted(pairs.read_sorted(), key=lambda row: row["instance"])
        self._drafts = [_with_output(row) for row in _sampled(ordered)]

    def lines(self) -> list[Line]:
        """Return the lines of all LLM stages that would ask something, in order."""
        lines = [self._task_line(stage) for stage in llm_stages.at(Position.TASKS, self._config)]
        whole = most = selected = 0.0
        for length, (number, at_most) in self._candidates().items():
            for stage in llm_stages.at(Position.CANDIDATES, self._config):
                lines.append(self._line(stage, self._drafts, number, at_most, f"{stage.name}-{length}"))
                number *= stage.expected_share(length)
            whole, most = whole + number, most + at_most
            selected += min(number, self._config.selection.per_categories * self._branching.sequences(length))
        for stage in llm_stages.at(Position.CHAINS, self._config):
            lines.append(self._line(stage, self._drafts, whole, most, stage.name))
        for stage in llm_stages.at(Position.SELECTED, self._config):
            drafts = self._asked_about(stage)
            number = selected * len(drafts) / max(len(self._drafts), 1)
            lines.append(self._line(stage, drafts, number, most if drafts else 0, stage.name))
        return [line for line in lines if line.most_calls]

    def _task_line(self, stage: LlmStage) -> Line:
        setting = stage.setting(self._config)
        tasks = [task for task in self._tasks if stage.applies is None or stage.applies(vars(task), setting)]
        rows = [task.row() for task in _sampled(tasks)]
        return self._line(stage, rows, len(tasks), len(tasks), stage.name)

    def _asked_about(self, stage: LlmStage) -> Sequence[Row]:
        """Return those of the sampled chains that a stage would ask about."""
        setting = stage.setting(self._config)
        return [row for row in self._drafts if stage.applies is None or stage.applies(row, setting)]

    def _candidates(self) -> dict[int, tuple[float, float]]:
        """Return the expected and the largest number of candidates of each length."""
        joins, found = self._config.joins, {2: (float(self._pairs), float(self._pairs))}
        stages = llm_stages.at(Position.CANDIDATES, self._config)
        for length in joins.lengths:
            expected, most = found[length - 1]
            cap = float(min(joins.per_categories * self._branching.sequences(length), 2 * joins.most))
            share = math.prod(stage.expected_share(length - 1) for stage in stages)
            found[length] = (min(expected * share * self._branching.mean, cap), min(most * self._branching.mean, cap))
        return found

    def _line(self, stage: LlmStage, rows: Sequence[Row], calls: float, most: float, name: str) -> Line:
        endpoint = stage.endpoint(self._config)
        sides = [self._definitions] if stage.needs_definitions else []
        asked = [stage.question(row, *sides) for row in rows]
        prompts = [questions.call(question, endpoint).prompt_tokens for question in asked]
        replies = [question.estimate_reply_tokens() for question in asked]
        return Line(name, calls, most, _mean(prompts), _mean(replies), endpoint)


def _sampled(rows: Sequence[Any]) -> Sequence[Any]:
    return rows[:: max(1, len(rows) // SAMPLE)]


def _with_output(row: Row) -> Row:
    """Return a candidate with an output of its last step: as a forecast takes it, the text that the step is given."""
    draft = Draft.from_row(row)
    return draft.answered(draft.input_of(draft.length), ()).row()


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def table(lines: Sequence[Line]) -> str:
    """Return the forecast as a table for people."""
    rows = [
        (
            line.stage,
            f"{line.calls:,.0f}",
            f"{line.most_calls:,.0f}",
            f"{line.prompt_tokens:,.0f}",
            f"{line.completion_tokens:,.0f}",
            f"{line.cost(line.calls):,.2f}",
            f"{line.cost(line.most_calls):,.2f}",
        )
        for line in lines
    ]
    calls, most = sum(line.calls for line in lines), sum(line.most_calls for line in lines)
    cost = sum(line.cost(line.calls) for line in lines)
    most_cost = sum(line.cost(line.most_calls) for line in lines)
    rows.append(("total", f"{calls:,.0f}", f"{most:,.0f}", "", "", f"{cost:,.2f}", f"{most_cost:,.2f}"))
    return "\n".join(text_table(HEADERS, rows))


def row(line: Line) -> Mapping[str, Any]:
    """Return a line as a JSON object."""
    return {
        "stage": line.stage,
        "calls": round(line.calls),
        "most_calls": round(line.most_calls),
        "prompt_tokens": round(line.prompt_tokens),
        "completion_tokens": round(line.completion_tokens),
        "usd": line.cost(line.calls),
        "most_usd": line.cost(line.most_calls),
    }
