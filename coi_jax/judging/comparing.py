"""Comparisons of two runs on a test set: by a language model, or by people."""

import itertools
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pydantic

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.schema import check_value
from coi_jax.common.storage import absolute, as_path
from coi_jax.common.wording import count_of
from coi_jax.data.test_sets import find_test_set
from coi_jax.judging import ballots, verdicts
from coi_jax.judging.answer_pairs import AnswerPair, asked, read_pairs
from coi_jax.judging.judge_config import JudgeConfig, open_client
from coi_jax.judging.preference import agreement, majority, preference, settle, summarize


class Compared(NamedTuple):
    """What is compared: run folders A and B, and the name of the test set."""

    a: str
    b: str
    test_set: str


class _WrittenVerdict(pydantic.BaseModel):
    id: str
    better: verdicts.Choice | None


class _Written(pydantic.BaseModel):
    """What is read again of the result of a comparison."""

    verdicts: list[_WrittenVerdict]


def by_model(compared: Compared, config: JudgeConfig, dollars: float | None) -> dict[str, Any]:
    """Return how often a language model prefers run A, with every verdict.

    Args:
      compared: the runs and the test set.
      config: of the judge, resolved.
      dollars: the most that all calls may cost; None: no limit.

    Raises:
      UserError: the runs cannot be compared, the budget is spent, or the endpoint did not answer.
    """
    pairs = _pairs(compared, config)
    with open_client(config, dollars) as client:
        judgements = verdicts.judge(asked(pairs), client, config)
    if judgements and all(settle(judgement) is None for judgement in judgements):
        raise UserError("endpoint.model", config.endpoint.model, f"no reply could be used: {judgements[0].reasons[0]}")
    return {
        **_head(compared),
        "judge": config.endpoint.model,
        "prompt_version": verdicts.read_prompt().version,
        "shows_reference": config.shows_reference,
        **summarize(pairs, judgements, resamples=config.bootstrap, seed=config.seed),
        "verdicts": [
            {"id": each.id, "better": settle(each), "orders": each.choices, "reasons": each.reasons}
            for each in judgements
        ],
    }


def by_people(compared: Compared, config: JudgeConfig, paths: Sequence[str]) -> dict[str, Any]:
    """Return how often people prefer run A, from the tables that they filled in.

    Args:
      compared: the runs and the test set.
      config: whose `bootstrap` and `seed` are used.
      paths: of the tables, one for each person.

    Raises:
      UserError: a table is given twice, is not as it was written, has no choice, or is of other runs or of another
        test set.
    """
    given = [absolute(path) for path in paths]
    for number, path in enumerate(given):
        if path in given[:number]:
            raise UserError("--score", paths[number], "is given twice; name one file of each person")
    people = [ballots.read_choices(path) for path in paths]
    for path in paths:
        _check_compared(compared, path, "--score")
    choices = majority(people)
    other = _verdicts_of_model(compared)
    return {
        **_head(compared),
        "judge": "people",
        "people": len(people),
        "pairs": len(choices),
        **preference(list(choices.values()), config.bootstrap, config.seed),
        "agreement_with_model": agreement(choices, other) if other else None,
        "agreement_between_people": [agreement(*pair) for pair in itertools.combinations(people, 2)],
        "verdicts": [{"id": id, "better": choice} for id, choice in choices.items()],
    }


def _verdicts_of_model(compared: Compared) -> dict[str, verdicts.Choice]:
    """Return the verdicts of a model on the same runs, where it was asked before."""
    path = as_path(default_path(compared))
    if not path.exists():
        return {}
    found = check_value(_Written, files.read_object(path, "verdicts"), "verdicts", path, "ask the model again")
    return {row.id: row.better for row in found.verdicts if row.better}


def write_for_people(compared: Compared, config: JudgeConfig, path: str) -> str:
    """Write the table for people; return what to do with it.

    Args:
      compared: the runs and the test set.
      config: whose `seed` and `examples` are used.
      path: of the table.
    """
    pairs = asked(_pairs(compared, config))
    if not pairs:
        raise UserError("--ballots", path, "would be empty: both runs gave the same answer to every chain")
    key = ballots.write_ballots(pairs, path, config.seed, _head(compared))
    words = ", ".join(ballots.CHOICES)
    written = f"{count_of(len(pairs), 'pair')} in {path}"
    return f"{written}: write {words} into the column `choice`; {key} says which side is whose"


def open_ballots(compared: Compared, config: JudgeConfig, path: str) -> str:
    """Write the table for people unless it is there; return what is to be said of it.

    Args:
      compared: the runs and the test set.
      config: whose `seed` and `examples` are used.
      path: of the table.

    Raises:
      UserError: the table that is there is of other runs.
    """
    key = as_path(ballots.key_path(path), "--ballots")
    if not (as_path(path, "--ballots").exists() and key.exists()):
        return write_for_people(compared, config, path)
    _check_compared(compared, path, "--ballots")
    return f"going on with {path}"


def _check_compared(compared: Compared, path: str, field: str) -> None:
    """Raise UserError where a table is of other runs, of the same in another order, or of another test set."""
    key: dict[str, str] = files.read_value(ballots.key_path(path), ("runs",), dict, "key")
    found = Compared(*(str(key.get(name, value)) for name, value in _head(compared).items()))
    same_runs = [absolute(found.a), absolute(found.b)] == [absolute(compared.a), absolute(compared.b)]
    if not same_runs or found.test_set != compared.test_set:
        hint = f"compares {found.a} as A with {found.b} as B on {found.test_set}; name these, or another file"
        raise UserError(field, path, hint)


def _pairs(compared: Compared, config: JudgeConfig) -> list[AnswerPair]:
    find_test_set(compared.test_set, "--task")
    if absolute(compared.a, "--a") == absolute(compared.b, "--b"):
        raise UserError("--b", compared.b, "is run A too; name another run")
    return read_pairs(compared.a, compared.b, compared.test_set, config.examples)


def _head(compared: Compared) -> dict[str, Any]:
    return {"a": compared.a, "b": compared.b, "test_set": compared.test_set}


def default_path(compared: Compared, judge: str = "model") -> str:
    """Return where a result goes: into run A, under the names of the test set and of run B.

    Args:
      compared: the runs and the test set.
      judge: "model" or "people".
    """
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(compared.b).name)
    return f"{compared.a}/judge/{compared.test_set}_vs_{name}_by_{judge}.json"
