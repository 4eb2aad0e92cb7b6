"""The cost of calls, and a budget that is never exceeded, however many workers spend from it.

Workers share a folder, which may be in a bucket. A worker takes a *lease* of some dollars by writing a file there, and
counts the leases of all: where they exceed the budget together it gives its own back and stops. So money is spent only
under leases that fit the budget. A lease is settled to what was really spent; a call whose reply was lost on its way
counts with all that it may have cost.

On a local disk a worker also keeps a journal of its calls. It settles the lease of a worker that was killed: to what
its replies cost, and all that the calls in flight may have cost. In a bucket, where no journal can grow, the whole
lease of such a worker counts.
"""

import json
import math
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import JsonError, parse_json
from coi_jax.common.seals import seal, unseal
from coi_jax.common.storage import as_path, is_local, make_folder
from coi_jax.llm.calls import Reply, token_limit
from coi_jax.llm.spending_journal import Journal, dollars_of_dead, open_journal

PER = 1_000_000  # tokens that a price is of
DIGITS = 12  # of a dollar: sums of calls that were set aside and returned leave rounding errors far below
LEASES = 200  # parts that a budget is taken in: a killed worker wastes one at most


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens."""

    prompt: float
    completion: float

    def of(self, reply: Reply) -> float:
        """Return what a reply cost."""
        return self.of_tokens(reply.prompt_tokens, reply.completion_tokens)

    def of_tokens(self, prompt: int | float, completion: int | float) -> float:
        """Return what so many tokens cost."""
        return (prompt * self.prompt + completion * self.completion) / PER

    def bound(self, body: Mapping[str, Any]) -> float:
        """More than a call of this body can cost: a token of its prompt is a byte at least."""
        size = len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return (size * self.prompt + token_limit(body) * self.completion) / PER


class BudgetReached(Exception):
    """No money is left for a call."""


def check_dollars(dollars: float | None) -> None:
    """Raise UserError where a budget is no number of US dollars; None is no limit."""
    if dollars is not None and not 0 <= dollars < math.inf:
        raise UserError("budget", dollars, "must be a number of US dollars; leave it out for no limit")


class Budget:
    """A worker's part in a budget.

    Args:
      folder: that the workers share; it holds what was spent, also by earlier runs.
      dollars: of all workers and runs together; None: no limit, spending is only counted.
      prices: of the model.
      in_flight: calls that a worker makes at once; a lease covers at least so many.

    Raises:
      UserError: the dollars are no number of them.
    """

    def __init__(self, folder: str, dollars: float | None, prices: Prices, in_flight: int) -> None:
        check_dollars(dollars)
        self.prices = prices
        self._dollars, self._in_flight = dollars, in_flight
        self._root = as_path(folder, "budget")
        make_folder(self._root, "budget")
        self._lock = threading.Lock()
        self._name = uuid.uuid4().hex
        self._journal: Journal | None = None
        self._leased = self._spent = self._reserved = 0.0

    def reserve(self, body: Mapping[str, Any]) -> float:
        """Set aside what a call of this body may cost, and return it, for `settle`.

        Raises:
          BudgetReached: the budget does not have as much.
        """
        bound = self.prices.bound(body)
        with self._lock:
            while self._spent + self._reserved + bound > self._leased:
                self._lease(bound)
            self._reserved += bound
            self._note(bound)
        return bound

    def settle(self, bound: float, cost: float) -> None:
        """Return what was set aside for a call, less what it cost."""
        with self._lock:
            self._reserved = round(self._reserved - bound, DIGITS)
            self._spent += cost
            self._note(cost - bound)

    def record(self, name: str, cost: float) -> None:
        """Count work that outlives this process, as a batch, with what it may cost, and later with what it did cost.

        Args:
          name: of the work.
          cost: US dollars; a later number replaces an earlier one.
        """
        self._write(name, cost)

    def close(self) -> None:
        """Give back what this worker leased and neither spent nor set aside."""
        with self._lock:
            if self._leased:
                self._leased = self._spent + self._reserved
                self._write(self._name, self._leased)

    def total(self) -> float:
        """Return what all workers and runs have spent or leased."""
        return sum(self._read().values(), 0.0)

    def _lease(self, bound: float) -> None:
        """Enlarge this worker's lease, by no more than the budget has left."""
        if self._journal is None and is_local(self._root):
            self._journal = open_journal(self._path(self._name, ".journal"))
        before = self._leased
        others = self.total() - before
        needed = self._spent + self._reserved + bound - before
        wanted = max(needed, bound * self._in_flight, (self._dollars or 0.0) / LEASES)
        if self._dollars is not None:
            wanted = min(wanted, self._dollars - others - before)
        if wanted < needed:
            raise BudgetReached
        self._leased = before + wanted
        self._write(self._name, self._leased)
        if self._dollars is not None and self.total() > self._dollars:  # another worker took some at the same time
            self._leased = before
            self._write(self._name, before)
            raise BudgetReached

    def _note(self, dollars: float) -> None:
        if self._journal:
            self._journal.add(dollars)

    def _path(self, name: str, suffix: str) -> epath.Path:
        return self._root / f"{name}{suffix}"

    def _write(self, name: str, dollars: float) -> None:
        files.write_bytes(self._path(name, ".json"), json.dumps(seal({"dollars": dollars})).encode())

    def _read(self) -> dict[str, float]:
        found = {}
        for path in self._root.iterdir():
            if path.suffix == ".json" and not path.name.startswith("."):
                found[path.name] = self._dollars_of(path)
        return found

    def _dollars_of(self, path: epath.Path) -> float:
        """Return the dollars of a file; settle it where it is the lease of a worker that was killed."""
        journal = path.with_suffix(".journal")
        dead = dollars_of_dead(journal) if path.stem != self._name and is_local(path) else None
        if dead is None:
            return _read_dollars(path)
        self._write(path.stem, dead)
        journal.unlink(missing_ok=True)
        return dead


def _read_dollars(path: epath.Path) -> float:
    """Return the dollars of a file; raise UserError where it holds none."""
    hint = 'write {"dollars": X} into it, X being what it may have recorded'
    try:
        dollars = unseal(parse_json(path.read_bytes()), "budget", path, hint, strict=False)["dollars"]
    except (JsonError, AttributeError, KeyError, TypeError):
        dollars = None
    if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not math.isfinite(dollars):
        raise UserError("budget", path, f"is damaged; {hint}")
    return float(dollars)
