"""Serve the page on which a person decides on the chains of a build."""

import secrets
import threading
from collections.abc import Sequence
from typing import Any

import flask

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile, PathLike, as_path
from data_pipeline.build import decisions
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.review import review_order
from data_pipeline.build.review.build_report import PAGES, chain_row, safe_json
from data_pipeline.build.review.chain_outcomes import Outcome

HOST = "127.0.0.1"  # of this machine alone: the page asks for no password


class CurationSession:
    """Chains in the order in which they are shown, and the file of decisions on them.

    Args:
      found: the chains.
      path: of the decisions.
      by: who decides.
      least_score: that the build asks of second opinions.
      seed: of the order.
    """

    def __init__(self, found: Sequence[Outcome], path: PathLike, by: str, least_score: int, seed: int) -> None:
        self.path, self.by = as_path(path, "--decisions"), by
        self._by_id = {one.draft.id: one for one in found}
        drafts = [one.draft for one in found]
        self.order = [draft.id for draft in review_order.review_order(drafts, least_score, seed)]
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.recover_jsonl(path)
        self._rows = dict(decisions.read(path).rows)

    def state(self) -> dict[str, Any]:
        """Return how many chains are decided, and how far people and second opinions agree."""
        drafts = (self._by_id[name].draft for name in self._rows if name in self._by_id)
        return {
            "decided": len(self._rows),
            "chains": len(self.order),
            "agreement": decisions.agreement(drafts, Decisions(self._rows)),
        }

    def chain(self, place: int) -> dict[str, Any]:
        """Return the chain at a place of the order, with the decision on it."""
        one = self._by_id[self.order[place]]
        return {"place": place, "decision": self._rows.get(one.draft.id), "chain": chain_row(one)} | self.state()

    def first_open(self) -> int:
        """Return the first place without a decision; the last place where all have one."""
        places = (place for place, name in enumerate(self.order) if name not in self._rows)
        return next(places, len(self.order) - 1)

    def decide(self, row: Any) -> dict[str, Any]:
        """Append a decision to the file; return the new state.

        Raises:
          UserError: it is not a decision on a chain of the build.
        """
        decisions.check(row, "the page's")
        if row["id"] not in self._by_id:
            raise UserError("id", row["id"], "is no chain of this build")
        steps = row.get("steps")
        if steps is not None and len(steps) != self._by_id[row["id"]].draft.length:
            raise UserError("steps", len(steps), "an edit keeps the number of steps")
        with self._lock, AppendFile(self.path) as file:
            files.append_jsonl(file, row | {"by": self.by})
            self._rows[row["id"]] = row
        return self.state()


def application(session: CurationSession) -> flask.Flask:
    """Return the page's server. A decision must carry the page's token, so that no other site can send one."""
    app = flask.Flask(__name__, template_folder=str(PAGES))
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    token = secrets.token_urlsafe()

    @app.get("/")
    def page() -> str:
        start = {"token": token, "place": session.first_open()}
        return flask.render_template("curate.html", start=safe_json(start), by=session.by)

    @app.get("/chains/<int:place>")
    def chain(place: int) -> Any:
        return session.chain(place) if place < len(session.order) else (flask.jsonify(error="no such chain"), 404)

    @app.post("/decisions")
    def decide() -> Any:
        if flask.request.headers.get("X-Token") != token:
            return flask.jsonify(error="this page is of another run; reload it"), 403
        try:
            return session.decide(flask.request.get_json())
        except UserError as error:
            return flask.jsonify(error=str(error)), 400

    return app
