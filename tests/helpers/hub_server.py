"""A small Hugging Face Hub on the loopback interface: repositories from local folders, over real HTTP."""

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """Repositories and what was asked of them.

    Attributes:
      commits: the folders of each repository by their commits, by its path, as `org/name` or `datasets/org/name`; the
        branch `main` is at the last.
      gated: repositories that answer 403.
      broken_after: bytes after which the next download of a file is cut off; None leaves all whole.
      ranges: the Range headers that came.
      urls: the paths of all requests.
    """

    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken_after: int | None = None
    ranges: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    endpoint: str = ""

    def add(self, repository: str, folder: Path, commit: str = "a" * 40) -> None:
        """Add a repository, or push to one."""
        self.commits.setdefault(repository, {})[commit] = folder


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty Hub until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        self.hub.urls.append(path)
        is_api = path.startswith("api/")
        rest = path.removeprefix("api/").removeprefix("models/")
        parts = rest.split("/")
        size = 3 if parts[0] == "datasets" else 2
        repository, more = "/".join(parts[:size]), parts[size:]
        commits = self.hub.commits.get(repository, {})
        revision = more[1] if len(more) > 1 else "main"
        commit = list(commits)[-1] if commits and revision == "main" else revision
        if not commits:
            self._refuse(404, "RepoNotFound")
        elif repository in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif commit not in commits:
            self._refuse(404, "RevisionNotFound")
        elif is_api:
            self._describe(repository.removeprefix("datasets/"), commit, commits[commit])
        else:
            self._send_file(commit, commits[commit] / "/".join(more[2:]), with_body=with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _describe(self, name: str, commit: str, folder: Path) -> None:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        values = {"id": name, "sha": commit, "siblings": [{"rfilename": one} for one in names]}
        data = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, commit: str, path: Path, *, with_body: bool) -> None:
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            self.hub.ranges.append(asked)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self._write(data[start:])

    def _write(self, data: bytes) -> None:
        cut, self.hub.broken_after = self.hub.broken_after, None
        if cut is None or cut >= len(data):
            self.hub.broken_after = cut
            self.wfile.write(data)
            return
        self.wfile.write(data[:cut])
        self.wfile.flush()
        self.connection.close()
        self.close_connection = True
