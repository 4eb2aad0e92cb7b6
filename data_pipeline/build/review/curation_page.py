"""Serve the page on which a person decides on the chains of a build, to this machine alone."""

from typing import Any

import flask
from werkzeug.serving import BaseWSGIServer

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import parse_field
from coi_jax.common.local_page import FOREIGN, make_local_page, make_local_server
from data_pipeline.build.review.build_report import PAGES
from data_pipeline.build.review.curation import FILTERS, CurationSession


def application(session: CurationSession) -> flask.Flask:
    """Return the page's server. A decision must carry the page's token, so that no other site can send one."""
    local = make_local_page(PAGES)
    app = local.app

    @app.get("/")
    def page() -> str:
        return local.render("curate.html", {"place": session.first_open()}, by=session.by, filters=list(FILTERS))

    @app.get("/places")
    def places() -> Any:
        show, words = flask.request.args.get("show", "all"), flask.request.args.get("words", "")
        return (
            flask.jsonify(session.places(show, words)) if show in FILTERS else (flask.jsonify(error="no filter"), 400)
        )

    @app.get("/chains/<int:place>")
    def chain(place: int) -> Any:
        return session.chain(place) if place < len(session.order) else (flask.jsonify(error="no such chain"), 404)

    @app.post("/undo")
    def undo() -> Any:
        if local.is_foreign():
            return FOREIGN
        try:
            return session.undo() or ({"error": "there is no decision of this session left to undo"}, 400)
        except (UserError, OSError) as error:
            return flask.jsonify(error=f"not undone: {error}"), 400

    @app.post("/decisions")
    def decide() -> Any:
        if local.is_foreign():
            return FOREIGN
        try:
            return session.decide(parse_field(flask.request.get_data(), "decision", "the page's"))
        except (UserError, OSError) as error:
            return flask.jsonify(error=str(error)), 400

    return app


def make_page_server(session: CurationSession, port: int) -> BaseWSGIServer:
    """Return a server of the page, which answers once it is told to.

    Args:
      session: the chains and their decisions.
      port: to listen on; 0 takes any that is free.

    Raises:
      UserError: the port is taken, or this user may not listen on it.
    """
    return make_local_server(application(session), port)
