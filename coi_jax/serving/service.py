"""The models that a server answers with, and its limits."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coi_jax.common.errors import UserError
from coi_jax.config.run import BeamSearchConfig
from coi_jax.inference.model import Model
from coi_jax.inference.rows import Prompt, pad_length
from coi_jax.serving.answers import Answers
from coi_jax.serving.errors import ApiError
from coi_jax.serving.metrics import Metrics
from coi_jax.serving.prompting import make_prompt, options_of
from coi_jax.serving.requests import Completion
from coi_jax.serving.scheduler import Scheduler, Ticket


@dataclass(frozen=True)
class Limits:
    """What a server allows.

    Attributes:
      slots: prompts of a model that are answered at the same time.
      waiting: prompts of a model that may wait for a slot.
      seconds: that a request may take, waiting included.
      prompt_tokens: of the longest prompt; None: as long as the rows that the model was trained on.
      new_tokens: of the longest answer; None: as the model's config says (`evaluation.max_new_tokens`).
    """

    slots: int
    waiting: int
    seconds: float
    prompt_tokens: int | None = None
    new_tokens: int | None = None


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
      name: by which requests ask for it.
      model: the model.
      scheduler: that lets it answer.
    """

    name: str
    model: Model
    scheduler: Scheduler


class Service:
    """All models of a server.

    Args:
      models: by name; requests that name none are for the first one.
      limits: of the server.

    Raises:
      UserError: a model's config decodes in a way that requests cannot ask for.
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits) -> None:
        for name, model in models.items():
            if isinstance(model.config.evaluation.decoding, BeamSearchConfig):
                hint = f"{name} searches with beams, which a server does not; serve it with greedy or sample"
                raise UserError("config.evaluation.decoding", "beam", hint)
        self.limits, self.metrics = limits, Metrics()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.served = {name: Served(name, model, self._schedule(model)) for name, model in models.items()}
        self.metrics.watch({name: one.scheduler for name, one in self.served.items()})

    def _schedule(self, model: Model) -> Scheduler:
        limits, config = self.limits, model.config
        return Scheduler(
            model,
            slots=limits.slots,
            longest=pad_length(limits.prompt_tokens or config.data.length),
            limit=limits.new_tokens or config.evaluation.max_new_tokens,
            most_waiting=limits.waiting,
            deliver=self._deliver,
        )

    def start(self) -> None:
        """Let the models load, and deliver their updates to the running event loop."""
        self._loop = asyncio.get_running_loop()
        for one in self.served.values():
            one.scheduler.start()

    def close(self) -> None:
        """End all threads once everything is answered."""
        for one in self.served.values():
            one.scheduler.close()

    @property
    def is_alive(self) -> bool:
        """Return whether a model still loads, or answers."""
        return any(one.scheduler.is_alive for one in self.served.values())

    @property
    def failure(self) -> BaseException | None:
        """Return why a model cannot answer, None where nothing is known to be wrong."""
        return next((one.scheduler.failure for one in self.served.values() if one.scheduler.failure), None)

    @property
    def is_ready(self) -> bool:
        """Return whether all models are loaded."""
        return all(one.scheduler.is_ready for one in self.served.values())

    def find(self, name: str | None) -> Served:
        """Return a model by its name; the first one for None.

        Raises:
          ApiError: there is no such model.
        """
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            known = ", ".join(self.served)
            raise ApiError(404, f"model: {name[:200]}: unknown; one of {known}", "model", "model_not_found")
        return self.served[name]

    def make_prompts(
        self,
        served: Served,
        asked: Completion,
        ids: Sequence[int],
        *,
        forced: tuple[int, ...] = (),
        logprobs: bool = False,
        param: str = "messages",
    ) -> list[Prompt]:
        """Return one prompt for each answer that a request wants to the same ids.

        Args:
          served: the model that is asked.
          asked: the request.
          ids: of the prompt.
          forced: ids that each answer begins with.
          logprobs: whether log-probabilities are told.
          param: the field of the request that holds the prompt.

        Raises:
          ApiError: the prompt or the answer would be too long.
        """
        scheduler = served.scheduler
        options = options_of(served.model, asked, scheduler.limit, secrets.randbits(32), forced, logprobs=logprobs)
        longest = self.limits.prompt_tokens or served.model.config.data.length
        return [
            make_prompt(served.model, ids, options, choice, longest, param=param) for choice in range(asked.choices)
        ]

    def answer(self, served: Served, asked: Completion, prompts: Sequence[Prompt], *, is_followed: bool) -> Answers:
        """Let prompts be answered.

        Args:
          served: the model that is asked.
          asked: the request.
          prompts: one for each answer.
          is_followed: whether answers are read before they have ended.

        Raises:
          ApiError: the model has too much to do, or is not there yet.
        """
        return Answers(
            served.scheduler,
            served.model.vocabulary,
            prompts,
            stops=asked.stops,
            is_followed=is_followed,
            seconds=self.limits.seconds,
            metrics=self.metrics,
        )

    def _deliver(self, tickets: Sequence[Ticket]) -> None:
        """Wake whoever waits for tickets; called by the threads of models."""
        assert self._loop is not None
        calls: list[Callable[[], None]] = [ticket.notify for ticket in tickets]
        self._loop.call_soon_threadsafe(lambda: [call() for call in calls])
