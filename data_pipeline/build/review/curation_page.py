"""Serve the page on which a person decides on the chains of a build, to this machine alone."""

import secrets
import socket
from typing import Any

import flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import parse_field
from data_pipeline.build.review.build_report import PAGES, safe_json
from data_pipeline.build.review.curation import FILTERS, CurationSession

MOST_BYTES = 2**24  # of a decision
HOST = "127.0.0.1"  # of this machine alone: the page asks for no password

# Nothing but the page's own script and style runs, and no other site can show the page in a frame.
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class QuietHandler(WSGIRequestHandler):
    """Serves without a log: its lines would hide the address that the command prints."""

    def log_request(self, *_: Any) -> None:
        """Log nothing."""


def application(session: CurationSession) -> flask.Flask:
    """Return the page's server. A decision must carry the page's token, so that no other site can send one."""
    app = flask.Flask(__name__, template_folder=str(PAGES))
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    token, nonce = secrets.token_urlsafe(), secrets.token_urlsafe()

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = POLICY.format(nonce=nonce)
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/")
    def page() -> str:
        start = {"token": token, "place": session.first_open()}
        return flask.render_template(
            "curate.html", start=safe_json(start), by=session.by, nonce=nonce, filters=list(FILTERS)
        )

    @app.get("/places")
    def places() -> Any:
        show, words = flask.request.args.get("show", "all"), flask.request.args.get("words", "")
        return (
            flask.jsonify(session.places(show, words)) if show in FILTERS else (flask.jsonify(error="no filter"), 400)
        )

    @app.get("/chains/<int:place>")
    def chain(place: int) -> Any:
        return session.chain(place) if place < len(session.order) else (flask.jsonify(error="no such chain"), 404)

    def is_foreign() -> bool:
        return flask.request.headers.get("X-Token") != token

    foreign = {"error": "this page is of another run; reload it"}, 403

    @app.post("/undo")
    def undo() -> Any:
        if is_foreign():
            return foreign
        return session.undo() or ({"error": "there is no decision of this session left to undo"}, 400)

    @app.post("/decisions")
    def decide() -> Any:
        if is_foreign():
            return foreign
        try:
            return session.decide(parse_field(flask.request.get_data(), "decision", "the page's"))
        except UserError as error:
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
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        hint = f"{getattr(error, 'strerror', None) or error}; leave --port out to take any that is free"
        raise UserError("port", port, hint) from None
    listening.listen()
    number = listening.getsockname()[1]
    return make_server(
        HOST, number, application(session), threaded=True, request_handler=QuietHandler, fd=listening.detach()
    )
