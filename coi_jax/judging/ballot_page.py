"""A local page on which one person compares the answers of a table of ballots, without knowing the runs, by keyboard.

Every choice is in the table at once, which is written whole or not at all; the same command goes on where it ended.
"""

import threading
from pathlib import Path
from typing import Any

import flask

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import parse_field
from coi_jax.common.local_page import FOREIGN, make_local_page
from coi_jax.common.storage import PathLike
from coi_jax.judging.ballot_table import write_rows
from coi_jax.judging.ballots import CHOICES, read_ballots, shown_text

PAGES = Path(__file__).with_name("pages")


class BallotSession:
    """The pairs of a table, and the choices in it.

    Args:
      path: of the table, as `--ballots` writes it.

    Raises:
      UserError: there is no such table, or one of its choices is none.
    """

    def __init__(self, path: PathLike) -> None:
        self.path, self._rows = path, read_ballots(path)
        self._places = {row["id"]: place for place, row in enumerate(self._rows)}
        self._lock = threading.Lock()
        self._undoable: list[tuple[int, str]] = []  # the pair, and the choice before

    def state(self) -> dict[str, Any]:
        """Return how many pairs are decided, and the first one that is not."""
        decided = sum(bool(row["choice"]) for row in self._rows)
        return {"decided": decided, "pairs": len(self._rows), "open": self.first_open()}

    def first_open(self) -> int | None:
        """Return the first place without a choice; None where all have one."""
        return next((place for place, row in enumerate(self._rows) if not row["choice"]), None)

    def pair(self, place: int) -> dict[str, Any]:
        """Return the pair at a place, with the choice."""
        row = self._rows[place]
        texts = {name: shown_text(row[name]) for name in ("instruction", "input", "left", "right")}
        return {"place": place, "id": row["id"], "choice": row["choice"], **texts, **self.state()}

    def choose(self, row: Any) -> dict[str, Any]:
        """Write a choice into the table; return the new state.

        Raises:
          UserError: it is no choice on a pair of the table.
        """
        if not isinstance(row, dict) or row.get("choice") not in CHOICES:
            raise UserError("choice", row, f"has no choice of {', '.join(CHOICES)}")
        if not isinstance(row.get("id"), str) or row["id"] not in self._places:
            raise UserError("id", row.get("id"), "is no pair of this table")
        with self._lock:
            place = self._places[row["id"]]
            before = self._write(place, row["choice"])
            self._undoable.append((place, before))
        return self.state()

    def undo(self) -> dict[str, Any] | None:
        """Take back the newest choice of this session; return its pair, None where there is no choice left."""
        with self._lock:
            if not self._undoable:
                return None
            place, before = self._undoable[-1]
            self._write(place, before)
            self._undoable.pop()
        return self.pair(place)

    def _write(self, place: int, choice: str) -> str:
        """Write a choice; return the one before. Where the table cannot be written, nothing has changed."""
        before = self._rows[place]["choice"]
        rows = [*self._rows[:place], self._rows[place] | {"choice": choice}, *self._rows[place + 1 :]]
        write_rows(self.path, rows)
        self._rows = rows
        return before


def application(session: BallotSession) -> flask.Flask:
    """Return the page's server. A choice must carry the page's token, so that no other site can send one."""
    local = make_local_page(PAGES)
    app = local.app

    @app.get("/")
    def page() -> str:
        return local.render("ballots.html", {"place": session.first_open() or 0})

    @app.get("/open")
    def open_place() -> Any:
        return {"place": session.first_open()}

    @app.get("/pairs/<int:place>")
    def pair(place: int) -> Any:
        return session.pair(place) if place < session.state()["pairs"] else ({"error": "no such pair"}, 404)

    @app.post("/undo")
    def undo() -> Any:
        if local.is_foreign():
            return FOREIGN
        try:
            return session.undo() or ({"error": "there is no choice of this session left to undo"}, 400)
        except (UserError, OSError) as error:
            return {"error": f"not undone: {error}"}, 400

    @app.post("/choices")
    def choose() -> Any:
        if local.is_foreign():
            return FOREIGN
        try:
            return session.choose(parse_field(flask.request.get_data(), "choice", "the page's"))
        except (UserError, OSError) as error:
            return {"error": f"not saved: {error}"}, 400

    return app
