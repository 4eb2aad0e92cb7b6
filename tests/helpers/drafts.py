"""Chains on their way, for tests."""

from coi_jax.chains.chain import Step
from data_pipeline.build.drafts import Draft, Opinion, Verdict


def draft(name: str, length: int = 2, opinion: Opinion | None = None, split: str = "train") -> Draft:
    steps = tuple(
        Step(f"Do {name} {k}.", f"output {name} {k}", f"Category {k}", f"task-{name}-{k}") for k in range(1, length + 1)
    )
    verdicts = tuple(Verdict(k, True, "it fits") for k in range(2, length + 1))
    return Draft(f"instance-{name}", split, f"input {name}", steps, verdicts, opinion)


def opinion(score: int, valid: bool | None = None) -> Opinion:
    return Opinion(score >= 4 if valid is None else valid, score, None if score >= 4 else 2, f"it is worth {score}")
