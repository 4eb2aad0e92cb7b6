"""What the server counts, in the form of Prometheus."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from coi_jax.serving.scheduler import Scheduler, Ticket

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
RECENT = 0.1  # the weight of the newest request in the mean time of one


class Metrics:
    """Counters of requests and tokens, times to the first token and per token, and how busy each model is."""

    def __init__(self) -> None:
        self._registry = all = CollectorRegistry()
        self._requests = Counter("coi_requests", "Requests, by path and status.", ["path", "status"], registry=all)
        self._prompt_tokens = Counter("coi_prompt_tokens", "Tokens of prompts that were answered.", registry=all)
        self._new_tokens = Counter("coi_new_tokens", "Tokens written.", registry=all)
        self._first = Histogram("coi_first_token_seconds", "Until the first token.", registry=all, buckets=SECONDS)
        self._per_token = Histogram("coi_token_seconds", "Per token after it.", registry=all, buckets=SECONDS)
        self._mean_seconds = 1.0  # of a request, lately

    def watch(self, schedulers: Mapping[str, Scheduler]) -> None:
        """Show how many prompts of each model are being answered, and wait, and what was read once for several."""
        for title, name, value in (
            ("coi_busy_slots", "Prompts that are being answered.", _busy),
            ("coi_waiting_prompts", "Prompts that wait for a slot.", _waiting),
            ("coi_reused_prompt_tokens", "Tokens of prompts that were known from the prompts before.", _reused),
        ):
            gauge = Gauge(title, name, ["model"], registry=self._registry)
            for model, scheduler in schedulers.items():
                gauge.labels(model).set_function(_of(scheduler, value))

    def count(self, path: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()

    def observe(self, ticket: Ticket, written: int) -> None:
        """Note an answer that has ended.

        Args:
          ticket: of its prompt.
          written: tokens.
        """
        now = time.monotonic()
        first = ticket.first or now
        self._prompt_tokens.inc(len(ticket.prompt.tokens))
        self._new_tokens.inc(written)
        self._first.observe(first - ticket.arrived)
        if written > 1:
            self._per_token.observe((now - first) / (written - 1))
        self._mean_seconds += RECENT * (now - first - self._mean_seconds)

    def seconds_to_wait(self, waiting: int) -> float:
        """Return about how long it takes until fewer prompts wait: some requests' time, a few where many do."""
        return self._mean_seconds * min(waiting, 10)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it, of type `CONTENT_TYPE_LATEST`."""
        return generate_latest(self._registry)


def _of(scheduler: Scheduler, value: Callable[[Scheduler], int]) -> Callable[[], float]:
    return lambda: float(value(scheduler))


def _busy(scheduler: Scheduler) -> int:
    return scheduler.busy


def _waiting(scheduler: Scheduler) -> int:
    return scheduler.waiting


def _reused(scheduler: Scheduler) -> int:
    return scheduler.reused
