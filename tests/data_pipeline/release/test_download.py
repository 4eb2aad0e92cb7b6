import collections
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from data_pipeline.release import download as release_download
from data_pipeline.release.download import ATTEMPTS, default_folder, download

CONTENT = {
    "train/coi_2.json": b'[{"instruction": "Sort the cards."}]' * 9000,
    "train/summarized_coi_3": b"[]",
    "test/bigbenchhard/test_snarks": bytes(range(256)) * 700,
}
CHECKSUMS = {
    path: hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
    for path, body in CONTENT.items()
}
PATH = "train/coi_2.json"
# What a server does wrong with a request: takes the handler, the body due and the number of requests for it so far.
Fault = Callable[["Handler", bytes, int], bytes | None]


@dataclass
class Site:
    """A server on loopback: what it was asked for, and what it does wrong."""

    url: str
    faults: dict[str, Fault] = field(default_factory=dict)
    ranges: bool = True
    asked: dict[str, list[str | None]] = field(default_factory=lambda: collections.defaultdict(list))


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        asked = self.site.asked[path]
        asked.append(self.headers["Range"])
        if path not in CONTENT:
            return self.send_error(404)
        body: bytes | None = CONTENT[path]
        if path in self.site.faults:
            body = self.site.faults[path](self, CONTENT[path], len(asked))
        if body is not None:
            self.send_part(body)

    def send_part(self, body: bytes, sent: int | None = None) -> None:
        """Answers with the range asked for; `sent` cuts the answer after so many bytes."""
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if self.site.ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][:sent])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(release_download, "FIRST_PAUSE_SECONDS", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.site = Site(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Handler.site
    server.shutdown()
    server.server_close()


def cut_short(times: int, sent: int = 100_000) -> Fault:
    def fault(handler: Handler, body: bytes, request: int) -> bytes | None:
        if request > times:
            return body
        handler.send_part(body, sent)
        return None

    return fault


def status(code: int, times: int) -> Fault:
    def fault(handler: Handler, body: bytes, request: int) -> bytes | None:
        if request > times:
            return body
        handler.send_error(code)
        return None

    return fault


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fetches_everything_once(site: Site, tmp_path: Path) -> None:
    assert download(tmp_path, site.url + "/", CHECKSUMS) == tmp_path
    assert contents(tmp_path) == CONTENT
    download(tmp_path, site.url, CHECKSUMS)
    assert {path: len(asked) for path, asked in site.asked.items()} == dict.fromkeys(CONTENT, 1)


def test_a_broken_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.faults[PATH] = cut_short(times=2)
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT
    assert site.asked[PATH] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.faults[PATH] = cut_short(times=2)
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path, code: int) -> None:
    site.faults[PATH] = status(code, times=ATTEMPTS - 1)
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT


def test_what_keeps_failing_is_an_error_and_the_next_run_goes_on(site: Site, tmp_path: Path) -> None:
    site.faults[PATH] = cut_short(times=ATTEMPTS, sent=1000)
    with pytest.raises(UserError, match=r"failed 5 times.*run again"):
        download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == {PATH + ".part": CONTENT[PATH][: 1000 * ATTEMPTS]}
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT
    assert site.asked[PATH][-1] == f"bytes={1000 * ATTEMPTS}-"


def test_a_file_that_is_not_served_is_named_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train/coi_9.json: the server says 404"):
        download(tmp_path, site.url, CHECKSUMS | {"train/coi_9.json": "0" * 40})
    assert contents(tmp_path) == CONTENT
    assert len(site.asked["train/coi_9.json"]) == 1


def test_a_corrupted_file_is_refused_and_not_kept(site: Site, tmp_path: Path) -> None:
    site.faults["train/summarized_coi_3"] = lambda handler, body, request: b"[x"
    with pytest.raises(UserError, match=r"summarized_coi_3: checksum is .* changed on the way"):
        download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == {PATH: CONTENT[PATH]}


@pytest.mark.parametrize("left", [b"spoilt", b"spoilt" * 100_000, CONTENT[PATH]], ids=["short", "long", "whole"])
def test_a_spoilt_or_whole_part_of_an_earlier_run_is_mended(site: Site, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / (PATH + ".part")).write_bytes(left)
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT


def test_a_changed_file_is_fetched_again(site: Site, tmp_path: Path) -> None:
    download(tmp_path, site.url, CHECKSUMS)
    (tmp_path / PATH).write_bytes(b"changed")
    download(tmp_path, site.url, CHECKSUMS)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("url", ["nowhere", "http://", "ftp://files", "/data"])
def test_a_base_url_that_is_no_web_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=f"base_url: {url}: is no web address"):
        download(tmp_path, url, CHECKSUMS)


def test_a_closed_port_is_an_error(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/.* failed 5 times"):
        download(tmp_path, "http://127.0.0.1:9", CHECKSUMS)


def test_downloads_are_kept_by_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path in default_folder().parents
