"""Calls by the Batch API: submitted in files, answered within a day at a lower price, collected into a store.

What was submitted is written down in a folder, so that a run that is interrupted goes on with the same jobs. A batch
carries the hash of its calls: one that was made, but not yet written down, is found again among the endpoint's own. The
money for a batch is set aside under its own name, as it is spent whether this process lives or not.
"""

import collections
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import httpx2  # that the openai client is made with
import openai

from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.progress import Bar
from coi_jax.common.storage import AppendFile, PathLike, as_path, make_folder
from coi_jax.common.wording import count_of
from coi_jax.llm.batch_lines import Failure, Line, read_line, split_lines
from coi_jax.llm.budget import Budget, BudgetReached
from coi_jax.llm.calls import Reply, with_estimates
from coi_jax.llm.endpoint import environment_errors
from coi_jax.llm.failures import INTERNAL_ERROR, Declined, connection_fault, error_of_status, meaning_of
from coi_jax.llm.reply_formats import FORMATS, TEXT, format_of, is_about_formats, note_fallback, with_format
from coi_jax.llm.reply_store import Store
from coi_jax.llm.settings import EndpointConfig

ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
MOST_CALLS = 50_000  # in a file, and
MOST_BYTES = 180 * 2**20  # of it, as OpenAI's Batch API allows (it says 200 MB)
MOST_LISTED = 1000  # of the endpoint's batches, among which one that was not written down is looked for
DONE = ("completed", "expired", "cancelled")  # statuses of a batch whose results can be read
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
NO_BATCHES = (404, 405, 501)  # statuses of an endpoint without a Batch API
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between attempts of the openai client; each is twice the one before
TAG = "coi_calls"  # the metadata that holds a batch's hash
Body = dict[str, Any]
Job = dict[str, Any]


class Batches:
    """Batches of one endpoint.

    Args:
      config: of the endpoint, resolved.
      key: of the endpoint.
      folder: where jobs are written down.
      store: that gets the replies.
      budget: from which calls are paid, with the prices of batches.

    Attributes:
      declined: why the endpoint declined calls, by their keys.
      failures: how many calls failed otherwise, by reason; they are asked for again in the next batch.
    """

    def __init__(self, config: EndpointConfig, key: str, folder: PathLike, store: Store, budget: Budget) -> None:
        self._said_failing = False
        self._client = openai.OpenAI(
            api_key=key,
            base_url=config.base_url,
            max_retries=len(_pauses(config)),
            timeout=config.timeout_seconds,
            http_client=_NotingClient(self._note_failure),
        )
        self._config = config
        self._jobs, self._store, self._budget = as_path(folder) / "jobs.jsonl", store, budget
        self.declined: dict[str, str] = {}
        self.failures: collections.Counter[str] = collections.Counter()
        self._calls: dict[str, Body] = {}
        make_folder(self._jobs.parent, "--work")
        files.recover_jsonl(self._jobs, "--work")
        self._format = next((job["format"] for job in reversed(self._known()) if job.get("format")), FORMATS[0])

    def answer(self, bodies: Iterable[Body], poll_seconds: float) -> int:
        """Get replies to calls, those of earlier jobs that are still open too; return how many came.

        Calls that the endpoint declined because of the format of their replies are asked again in a weaker one.

        Raises:
          BudgetReached: the budget has not enough for a single call that is missing.
          UserError: the endpoint refused a batch, has no Batch API, or cannot be reached.
        """
        self._calls = {files.digest(body): body for body in bodies}
        came = self.collect(poll_seconds)  # jobs of an earlier run may have some of the answers
        while missing := self._missing():
            affordable = self._afford(missing)
            try:
                for part in _parts(affordable):
                    self.submit(part)
            finally:  # each batch counts under its own name from now on
                self._budget.settle(self._bound(affordable), 0.0)
                self._budget.close()
            came += self.collect(poll_seconds)
            if not affordable:
                raise BudgetReached
            if not self._fall_back():
                break
        return came

    def _missing(self) -> dict[str, Body]:
        """Return the calls that are neither answered nor declined, in the format that is asked for."""
        return {
            key: with_format(body, max(format_of(body), self._format, key=FORMATS.index))
            for key, body in self._calls.items()
            if key not in self.declined and self._store.get(key) is None
        }

    def _afford(self, calls: dict[str, Body]) -> dict[str, Body]:
        """Return the first calls that the budget has enough for, which is set aside."""
        found = {}
        for key in sorted(calls):
            try:
                self._budget.reserve(calls[key])
            except BudgetReached:
                break
            found[key] = calls[key]
        return found

    def _bound(self, calls: dict[str, Body]) -> float:
        return sum((self._budget.prices.bound(body) for body in calls.values()), 0.0)

    def submit(self, calls: dict[str, Body]) -> str:
        """Make a batch of calls, by key, unless there is an open one of the same; return its id.

        Raises:
          UserError: the endpoint refuses it, has no Batch API, or cannot be reached.
        """
        name = self._name(calls)
        same = [job for job in self._known() if job["calls"] == name]
        if found := next((job["id"] for job in same if not job["collected"]), None):
            return str(found)
        money, bound = f"batch-{name[:24]}-{len(same)}", self._bound(calls)
        job = self._find(name, {job["id"] for job in same})
        self._budget.record(money, bound)
        job = job or self._create(name, calls, money)
        note = {"id": job, "calls": name, "number": len(calls), "collected": False, "money": money, "bound": bound}
        self._note(note | {"format": self._format})
        return job

    def _name(self, calls: dict[str, Body]) -> str:
        """Return a hash of some calls, and of the format where it is not the one of the calls themselves."""
        name = files.digest(sorted(calls))
        weakened = any(body != self._calls.get(key, body) for key, body in calls.items())
        return files.digest([name, self._format]) if weakened else name

    def _create(self, name: str, calls: dict[str, Body], money: str) -> str:
        lines = "".join(
            json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}) + "\n"
            for key, body in calls.items()
        )
        try:
            with self._one_line_errors():
                file = self._client.files.create(file=("calls.jsonl", lines.encode()), purpose="batch")
                job = self._client.batches.create(
                    input_file_id=file.id, endpoint=ENDPOINT, completion_window=WINDOW, metadata={TAG: name[:64]}
                )
                return _text(job.id)
        except _Refused:
            self._budget.record(money, 0.0)
            raise

    def _find(self, name: str, known: set[str]) -> str | None:
        """Return a batch of the endpoint that has these calls, which an earlier run made before it was stopped.

        Args:
          name: of the calls.
          known: batches that are written down.
        """
        with self._one_line_errors():
            jobs = itertools.islice(self._client.batches.list(limit=100), MOST_LISTED)
            tagged = (job.id for job in jobs if (job.metadata or {}).get(TAG) == name[:64])
            return next((job for job in tagged if job not in known), None)

    def collect(self, poll_seconds: float) -> int:
        """Wait for all open jobs and keep their replies; return how many there are.

        Raises:
          UserError: the endpoint says that a batch failed, or cannot be reached.
        """
        waiting = [job for job in self._known() if not job["collected"]]
        came = 0
        with Bar("batches", sum(job["number"] for job in waiting)) as bar:
            while waiting:
                left = []
                for job in waiting:
                    found = self._collect_one(job)
                    if found is None:
                        left.append(job)
                    else:
                        came += found
                        bar.advance(job["number"])
                waiting = left
                if waiting:
                    bar.advance(0, note=f"{len(waiting)} open")
                    time.sleep(poll_seconds)
        return came

    def _collect_one(self, job: Job) -> int | None:
        """Return the number of replies that a job gave; None while it is open."""
        with self._one_line_errors():
            batch = self._client.batches.retrieve(job["id"])
        if batch.status == "failed":
            reasons = [error.message or "" for error in (batch.errors.data or [])] if batch.errors else []
            self._end(job, 0.0)
            raise UserError("batch", job["id"], f"the endpoint says that it failed: {shorten('; '.join(reasons))}")
        if batch.status in OPEN:
            return None
        if batch.status not in DONE:
            hint = f"gives a batch the status {batch.status!r}, which the Batch API does not have; leave out --batch"
            raise UserError("endpoint.base_url", str(self._client.base_url), hint)
        results = (
            batch.output_file_id,
            batch.error_file_id,
        )  # a call that failed stands in either, as endpoints differ
        came, cost = 0, 0.0
        for line in itertools.chain.from_iterable(map(self._lines, results)):
            cost += self._keep(line, job)
            came += isinstance(line.outcome, Reply)
        self._end(job, cost)
        return came

    def _lines(self, file: str | None) -> Iterator[Line]:
        if file:
            with self._one_line_errors(), self._client.files.with_streaming_response.content(file) as response:
                yield from map(read_line, split_lines(response.iter_bytes()))

    def _keep(self, line: Line, job: Job) -> float:
        """Put a reply into the store, or note why there is none; return what the call cost."""
        if isinstance(line.outcome, Declined):
            self.declined[line.key] = str(line.outcome)
            return 0.0
        if isinstance(line.outcome, Failure):
            self.failures[line.outcome.reason] += 1
            return self._most(line.key, job) if line.outcome.lost else 0.0
        reply = with_estimates(line.outcome, self._calls.get(line.key))
        self._store.put(line.key, reply)
        return self._most(line.key, job) if reply.is_estimate else self._budget.prices.of(reply)

    def _most(self, key: str, job: Job) -> float:
        """Return the most that a call of a job may have cost."""
        body = self._calls.get(key)
        return float(self._budget.prices.bound(body) if body else job.get("bound", 0.0) / job["number"])

    def _end(self, job: Job, cost: float) -> None:
        """Count a job with what it cost, and write down that it is collected."""
        if "money" in job:
            self._budget.record(job["money"], cost)
        self._note(job | {"collected": True})

    def _fall_back(self) -> bool:
        """Return whether calls were declined because of their format, for which a weaker one is asked from now on."""
        about = {key: reason for key, reason in self.declined.items() if is_about_formats(reason)}
        if not about:
            return False
        reason = next(iter(about.values()))
        strictest = min((format_of(self._calls[key]) for key in about), key=FORMATS.index)
        asked = max(self._format, strictest, key=FORMATS.index)
        if asked == TEXT:
            return False
        self._format = FORMATS[FORMATS.index(asked) + 1]
        note_fallback(asked, self._format, reason)
        for key in about:
            del self.declined[key]
        return True

    def _note_failure(self, reason: str) -> None:
        """Say once that the endpoint cannot answer now and is asked again."""
        if not self._said_failing:
            self._said_failing = True
            pauses = _pauses(self._config)
            times = f"{count_of(len(pauses), 'time')} within {sum(pauses):,.1f} s"
            limit = f"endpoint.attempts = {self._config.attempts}, patience_seconds = {self._config.patience_seconds:g}"
            print(f"note: {reason}; it is asked again, at most {times} ({limit})", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn what the openai client raises into one line for the user."""
        try:
            yield
        except openai.APIStatusError as error:
            told = error_of_status(error)
            meaning = meaning_of(told, self._config, error.response.headers)
            if error.status_code in NO_BATCHES:
                hint = f"has no such batch, or no Batch API: {told.reason}; leave out --batch"
                raise _Refused("endpoint.base_url", str(self._client.base_url), hint) from None
            if isinstance(meaning, UserError):
                raise _Refused(meaning.field, meaning.value, meaning.hint) from None
            kind = _Refused if isinstance(meaning, Declined) else UserError
            hint = f"the endpoint says {meaning}; run the same command again to go on"
            raise kind("batch", str(self._client.base_url), hint) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            hint = f"{connection_fault(error)}; run the same command again to go on"
            raise UserError("batch", str(self._client.base_url), hint) from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            hint = f"does not answer as a Batch API does ({type(error).__name__}); leave out --batch"
            raise UserError("endpoint.base_url", str(self._client.base_url), hint) from None

    def _known(self) -> list[Job]:
        """Return all jobs; the last line on one counts."""
        if not self._jobs.exists():
            return []
        try:
            return list({job["id"]: _checked(job) for job in files.read_jsonl(self._jobs, "batch jobs")}.values())
        except (KeyError, TypeError):
            hint = "is damaged; remove it: batches that are open are found again at the endpoint"
            raise UserError("batch jobs", self._jobs, hint) from None

    def _note(self, job: Job) -> None:
        with AppendFile(self._jobs) as file:
            files.append_jsonl(file, job)


class _NotingClient(openai.DefaultHttpxClient):
    """The openai client's own HTTP client, which tells of each request that will be made again."""

    def __init__(self, note: Callable[[str], None]) -> None:
        with environment_errors():
            super().__init__()
        self._note = note

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request as ever."""
        try:
            response = super().send(request, **options)
        except httpx2.TransportError as error:
            self._note(f"the endpoint cannot be reached: {connection_fault(error)}")
            raise
        if response.status_code >= INTERNAL_ERROR and response.status_code not in NO_BATCHES:
            self._note(f"the endpoint answers with status {response.status_code}")
        return response


class _Refused(UserError):
    """The endpoint refused what was asked of its Batch API: nothing will be paid for it."""


def _pauses(config: EndpointConfig) -> list[float]:
    """Return the seconds that the openai client waits before it makes a request again, together within the patience."""
    pauses = [min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) for attempt in range(config.attempts - 1)]
    waited = itertools.accumulate(pauses)
    return [pause for pause, total in zip(pauses, waited, strict=True) if total <= config.patience_seconds]


def _checked(job: Job) -> Job:
    """Return a job as it was written down; raise KeyError where it lacks something."""
    return {name: job[name] for name in ("id", "calls", "number", "collected")} | job


def _text(value: Any) -> str:
    """Return an id; raise TypeError where the endpoint gives none."""
    if not isinstance(value, str):
        raise TypeError("no id")
    return value


def _parts(calls: dict[str, Body]) -> Iterator[dict[str, Body]]:
    """Calls in the order of their keys, no more together than a file may hold."""
    part: dict[str, Body] = {}
    size = 0
    for key in sorted(calls):
        length = len(json.dumps(calls[key])) + 200
        if part and (len(part) == MOST_CALLS or size + length > MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = calls[key]
        size += length
    if part:
        yield part
