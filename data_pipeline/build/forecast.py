"""What a build would ask and pay, before it does: from its real seeds and pairs, and a sample of its prompts.

Nothing is asked. How many candidates pass a check is not known beforehand, so there are two numbers: where all do, and
where as many do as people found valid in the paper (75 of 100 pairs, 59 of 100 triplets; section 3). What is in the
store already costs nothing, which a forecast leaves out.
"""

import collections
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from coi_jax.llm.budget import Prices
from coi_jax.llm.calls import estimate_tokens
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build.asking import questions
from data_pipeline.build.asking.questions import Answer, Categorise, Fuse, Judge, Question, Summarise
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.drafts import Draft, Seed
from data_pipeline.build.engine.stage_runner import Stage
from data_pipeline.build.stages.linking import check_question

SAMPLE = 200  # prompts of each kind
VALID = {2: 0.75}  # share of candidates that pass, by length; longer ones:
VALID_LONGER = 0.59
REPLY_TOKENS = {"summarise": 25, "categorise": 10, "check": 40, "judge": 60, "fuse": 35}  # of this project's examples
OVERHEAD_TOKENS = 8  # of a reply's JSON around an output


@dataclass(frozen=True)
class Line:
    """One stage's questions: how many at most and about, and the mean tokens of a call."""

    stage: str
    calls: float
    most_calls: float
    prompt_tokens: float
    completion_tokens: float
    endpoint: EndpointConfig

    def cost(self, calls: float) -> float:
        """US dollars of so many calls."""
        prices = Prices(self.endpoint.prompt_price, self.endpoint.completion_price)
        return calls * prices.of_tokens(self.prompt_tokens, self.completion_tokens)


def forecast(config: BuildConfig, seeds: Stage, pairs: Stage) -> list[Line]:
    """The lines of a build's stages, in order.

    Args:
      config: of the build.
      seeds: its first stage; tasks have no short instruction yet, so the definition stands for it.
      pairs: candidates of two steps, made of them.
    """
    tasks = [Seed.from_row(row) for row in seeds.read()]
    sample = sorted(pairs.read_sorted(), key=lambda row: row["instance"])[:: max(1, pairs.counts["out"] // SAMPLE)]
    drafts = [Draft.from_row(row) for row in sample]
    without = [seed for seed in tasks if seed.category is None]
    lines = [
        _line("categories", [_category(seed) for seed in without], len(without), len(without), config.endpoint),
        _line("instructions", [Summarise(seed.definition) for seed in tasks], len(tasks), len(tasks), config.endpoint),
    ]
    passed = most = chosen = 0.0
    branching = Branching(map(Draft.from_row, pairs.read()))
    for length, (number, at_most) in _candidates(config, branching, pairs.counts["out"]).items():
        share = VALID.get(length, VALID_LONGER)
        lines.append(
            _line(
                f"checks-{length}", [check_question(draft.row()) for draft in drafts], number, at_most, config.endpoint
            )
        )
        lines.append(
            _line(f"answers-{length}", list(_answers(drafts, tasks)), number * share, at_most, config.endpoint)
        )
        passed, most = passed + number * share, most + at_most
        chosen += min(number * share, config.selection.per_categories * branching.sequences(length))
    if config.opinion.enabled:
        lines.append(_line("opinions", [_judge(draft) for draft in drafts], passed, most, config.opinion.endpoint))
    if "fused" in config.variants:
        fuse: list[Question] = [Fuse(tuple(step.instruction for step in draft.steps)) for draft in drafts]
        lines.append(_line("fused", fuse, chosen, most, config.endpoint))
    return [line for line in lines if line.most_calls]


class Branching:
    """What pairs of tasks say of longer chains."""

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
        """Categories that follow the second task of a pair: as many candidates a chain makes with one step more."""
        return statistics.fmean(len(self._followers.get(task, ())) for task in self._seconds) if self._seconds else 0.0

    def sequences(self, length: int) -> int:
        """How many sequences of categories of some length there are."""
        ends = collections.Counter(self._edges.keys())
        for _ in range(length - 1):
            following: collections.Counter[str] = collections.Counter()
            for category, number in ends.items():
                for after in self._edges.get(category, ()):
                    following[after] += number
            ends = following
        return ends.total()


def _candidates(config: BuildConfig, branching: Branching, pairs: int) -> dict[int, tuple[float, float]]:
    """Candidates of each length: about how many, and at most."""
    found = {2: (float(pairs), float(pairs))}
    for length in config.joins.lengths:
        about, most = found[length - 1]
        cap = float(min(config.joins.per_categories * branching.sequences(length), 2 * config.joins.most))
        share = VALID.get(length - 1, VALID_LONGER)
        found[length] = (min(about * share * branching.mean, cap), min(most * branching.mean, cap))
    return found


def _line(stage: str, asked: Sequence[Question], calls: float, most: float, endpoint: EndpointConfig) -> Line:
    sample = asked[:: max(1, len(asked) // SAMPLE)]
    prompts = [questions.call(question, endpoint).prompt_tokens for question in sample]
    replies = [_reply_tokens(question) for question in sample]
    mean = statistics.fmean
    return Line(stage, calls, most, mean(prompts) if prompts else 0.0, mean(replies) if replies else 0.0, endpoint)


def _reply_tokens(question: Question) -> float:
    """About the tokens of a reply; an output is taken to be a third as long as what it is made from."""
    if isinstance(question, Answer):
        return OVERHEAD_TOKENS + estimate_tokens(question.input) / 3
    return REPLY_TOKENS[question.prompt]


def _category(seed: Seed) -> Question:
    return Categorise(seed.definition, seed.instances[0].input, seed.instances[0].output)


def _answers(drafts: Sequence[Draft], tasks: Sequence[Seed]) -> Iterator[Question]:
    definitions = {seed.id: seed.definition for seed in tasks}
    for draft in drafts:
        last = draft.steps[-1]
        yield Answer(definitions[last.task or ""], last.instruction, draft.given(draft.length))


def _judge(draft: Draft) -> Question:
    return Judge(
        draft.input, tuple((step.instruction, step.output or draft.given(draft.length)) for step in draft.steps)
    )


def table(lines: Sequence[Line]) -> str:
    """The forecast for people."""
    rows = [f"{'stage':<14}{'calls':>10}{'at most':>12}{'tokens in':>12}{'out':>7}{'USD':>10}{'at most':>10}"]
    for line in lines:
        rows.append(
            f"{line.stage:<14}{line.calls:>10,.0f}{line.most_calls:>12,.0f}{line.prompt_tokens:>12,.0f}"
            f"{line.completion_tokens:>7,.0f}{line.cost(line.calls):>10,.2f}"
            f"{line.cost(line.most_calls):>10,.2f}"
        )
    calls, most = (sum(getattr(line, name) for line in lines) for name in ("calls", "most_calls"))
    about, at_most = (sum(line.cost(getattr(line, name)) for line in lines) for name in ("calls", "most_calls"))
    rows.append(f"{'together':<14}{calls:>10,.0f}{most:>12,.0f}{'':>19}{about:>10,.2f}{at_most:>10,.2f}")
    return "\n".join(rows)


def row(line: Line) -> dict[str, Any]:
    """A line as a JSON object."""
    return {
        "stage": line.stage,
        "calls": round(line.calls),
        "most_calls": round(line.most_calls),
        "prompt_tokens": round(line.prompt_tokens),
        "completion_tokens": round(line.completion_tokens),
        "usd": line.cost(line.calls),
        "most_usd": line.cost(line.most_calls),
    }
