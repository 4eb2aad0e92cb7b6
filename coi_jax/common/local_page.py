"""A page that one person uses on this machine: nothing but its own script runs, and no other site can read or send."""

import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from coi_jax.common.errors import UserError

MOST_BYTES = 2**24  # of what the page sends at once
HOST = "127.0.0.1"  # of this machine alone: the page asks for no password
STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("local_page.css", "local_page.js"))

# Nothing but the page's own script and style runs, and no other site can show the page in a frame.
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class LocalPage:
    """A Flask application with the headers of a page for this machine alone.

    Attributes:
      app: whose routes the caller adds.
      token: that the page must send along as the header `X-Token`, so that no other site can.
      nonce: of the page's script and style.
    """

    app: flask.Flask
    token: str
    nonce: str

    def render(self, template: str, start: Any, **values: Any) -> str:
        """Return the page.

        Args:
          template: its file, among the templates of the application.
          start: what its script begins with, as JSON values; the token is added.
          values: of the template.
        """
        shared = {"style": STYLE.read_text(encoding="utf-8"), "script": SCRIPT.read_text(encoding="utf-8")}
        data = safe_json(start | {"token": self.token})
        return flask.render_template(template, start=data, nonce=self.nonce, **shared, **values)

    def is_foreign(self) -> bool:
        """Return whether the request at hand was not sent by the page."""
        return flask.request.headers.get("X-Token") != self.token


FOREIGN = {"error": "this page is of another run; reload it"}, 403


def make_local_page(templates: Path) -> LocalPage:
    """Return an application without routes.

    Args:
      templates: the folder of its templates.
    """
    app = flask.Flask(__name__, template_folder=str(templates))
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    nonce = secrets.token_urlsafe()

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = POLICY.format(nonce=nonce)
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    return LocalPage(app, secrets.token_urlsafe(), nonce)


def safe_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: no `<` of the data can end it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


class QuietHandler(WSGIRequestHandler):
    """Serves without a log: its lines would hide the address that the command prints."""

    def log_request(self, *_: Any) -> None:
        """Log nothing."""


def make_local_server(app: flask.Flask, port: int) -> BaseWSGIServer:
    """Return a server of an application, which answers once it is told to.

    Args:
      app: of a page.
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
    return make_server(HOST, number, app, threaded=True, request_handler=QuietHandler, fd=listening.detach())
