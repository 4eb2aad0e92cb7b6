"""Calls by the Batch API: submitted in files, answered within a day at a lower price, collected into a store.

What was submitted is written down in a folder, so that a run that is interrupted goes on with the same jobs. A batch
carries the hash of its calls: one that was made, but not yet written down, is found again among the endpoint's own.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import openai

from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.progress import Bar
from coi_jax.common.storage import AppendFile, PathLike, as_path
from coi_jax.llm.budget import Budget, BudgetReached
from coi_jax.llm.calls import read_reply
from coi_jax.llm.reply_store import Store
from coi_jax.llm.settings import EndpointConfig

ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
MOST_CALLS = 50_000  # in a file, and
MOST_BYTES = 180 * 2**20  # of it, as OpenAI's Batch API allows (it says 200 MB)
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
TAG = "coi_calls"  # the metadata that holds a batch's hash
Body = dict[str, Any]


class Batches:
    """Batches of one endpoint.

    Args:
      config: of the endpoint, resolved.
      key: of the endpoint.
      folder: where jobs are written down.
      store: that gets the replies.
      budget: from which calls are paid, with the prices of batches.
    """

    def __init__(self, config: EndpointConfig, key: str, folder: PathLike, store: Store, budget: Budget) -> None:
        self._client = openai.OpenAI(
            api_key=key, base_url=config.base_url, max_retries=config.attempts, timeout=config.timeout_seconds
        )
        self._jobs, self._store, self._budget = as_path(folder) / "jobs.jsonl", store, budget
        self._reserved: dict[str, float] = {}
        self._jobs.parent.mkdir(parents=True, exist_ok=True)
        files.recover_jsonl(self._jobs)

    def answer(self, bodies: Iterable[Body], poll_seconds: float) -> int:
        """Get replies to calls, except those of earlier jobs that are still open; return how many came.

        Raises:
          BudgetReached: the budget has not enough for a single call that is missing.
          UserError: the endpoint refused a batch.
        """
        came = self.collect(poll_seconds)  # jobs of an earlier run may have some of the answers
        missing = {key: body for body in bodies if self._store.get(key := files.digest(body)) is None}
        affordable = self._afford(missing)
        for part in _parts(affordable):
            self.submit(part)
        came += self.collect(poll_seconds)
        for key in list(self._reserved):  # those that got no reply
            self._settle(key, 0.0)
        self._budget.close()
        if missing and not affordable:
            raise BudgetReached
        return came

    def _afford(self, calls: dict[str, Body]) -> dict[str, Body]:
        """Return the first calls that the budget has enough for, which is set aside."""
        found = {}
        for key in sorted(calls):
            try:
                self._reserved[key] = self._budget.reserve(calls[key])
            except BudgetReached:
                break
            found[key] = calls[key]
        return found

    def submit(self, calls: dict[str, Body]) -> str:
        """Make a batch of calls, by key, unless there is one of the same; return its id."""
        name = files.digest(sorted(calls))
        known: dict[str, str] = {job["calls"]: job["id"] for job in self._known()}
        if name in known:
            return known[name]
        job = self._find(name)
        if job is None:
            lines = "".join(
                json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}) + "\n"
                for key, body in calls.items()
            )
            file = self._client.files.create(file=("calls.jsonl", lines.encode()), purpose="batch")
            job = self._client.batches.create(
                input_file_id=file.id, endpoint=ENDPOINT, completion_window=WINDOW, metadata={TAG: name[:64]}
            ).id
        self._note({"id": job, "calls": name, "number": len(calls), "collected": False})
        return job

    def _find(self, name: str) -> str | None:
        """Return a batch of the endpoint that has these calls, which an earlier run made before it was stopped."""
        jobs = self._client.batches.list(limit=100)
        return next((job.id for job in jobs if (job.metadata or {}).get(TAG) == name[:64]), None)

    def collect(self, poll_seconds: float) -> int:
        """Wait for all open jobs and keep their replies; return how many there are.

        Raises:
          UserError: the endpoint says that a batch failed.
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

    def _collect_one(self, job: dict[str, Any]) -> int | None:
        """Return the number of replies that a job gave; None while it is open."""
        batch = self._client.batches.retrieve(job["id"])
        if batch.status in OPEN:
            return None
        if batch.status == "failed":
            reasons = [error.message or "" for error in (batch.errors.data or [])] if batch.errors else []
            self._note(job | {"collected": True})
            raise UserError("batch", job["id"], f"the endpoint says that it failed: {shorten('; '.join(reasons))}")
        came = sum(self._keep(line) for line in self._lines(batch.output_file_id))
        self._note(job | {"collected": True})
        return came

    def _lines(self, file: str | None) -> Iterator[dict[str, Any]]:
        if file:
            for line in self._client.files.content(file).text.splitlines():
                yield json.loads(line)

    def _keep(self, line: dict[str, Any]) -> bool:
        """Put a reply into the store; what went wrong is asked for again in the next batch."""
        response = line.get("response") or {}
        if response.get("status_code") != 200:
            return False
        try:
            reply = read_reply(response["body"])
        except ValueError:
            return False
        self._store.put(line["custom_id"], reply)
        self._settle(line["custom_id"], self._budget.prices.of(reply))
        return True

    def _settle(self, key: str, cost: float) -> None:
        """Pay for a call, unless an earlier run has set aside what it may cost: that counts as spent already."""
        if key in self._reserved:
            self._budget.settle(self._reserved.pop(key), cost)

    def _known(self) -> list[dict[str, Any]]:
        """Return all jobs; the last line on one counts."""
        if not self._jobs.exists():
            return []
        return list({job["id"]: job for job in files.read_jsonl(self._jobs, "batch jobs")}.values())

    def _note(self, job: dict[str, Any]) -> None:
        with AppendFile(self._jobs) as file:
            files.append_jsonl(file, job)


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
