"""The procedural "language model": it answers questions about procedural operations by computing.

It is the default where no endpoint is at hand, and the truth that a real model's answers are compared with.
"""

from concurrent.futures import Future
from typing import Any

from coi_jax.llm import Answered, Outcome, Rejected
from data_pipeline.build.asking.questions import Question

NO_ANSWER = "nothing is computed for a question of this kind"


class Oracle:
    """An `Answerer` that computes."""

    max_waiting = 1

    def submit(self, question: Question) -> "Future[Outcome[Any]]":
        """Answer a question at once; reject one that nothing computes, as for a fused instruction."""
        future: Future[Outcome[Any]] = Future()
        reply = question.computed_reply()
        future.set_result(Rejected(NO_ANSWER, ()) if reply is None else Answered(reply, ()))
        return future

    def release(self) -> None:
        """Do nothing: no money was set aside."""
