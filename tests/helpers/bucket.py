"""Buckets of Google Cloud Storage, emulated: `gs://NAME/KEY` is the file ROOT/NAME/KEY.

There are two ways in, as for real buckets. fsspec (and so epath and Orbax's metadata) gets a file system with the
semantics of an object store: no folders but those that hold an object, no appending, no partial upload. TensorStore
(the arrays of checkpoints) speaks Google's JSON API over HTTP with a server on loopback. Processes that are started
inside `emulated_buckets` have the same buckets, by `sitecustomize`.
"""

import contextlib
import http.server
import io
import json
import os
import pathlib
import random
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import fsspec
from etils.epath import backend
from fsspec.registry import _registry
from orbax.checkpoint._src.path import gcs_utils

ROOT_VARIABLE = "EMULATED_BUCKETS"
SITE = pathlib.Path(__file__).parent / "bucket_site"
GENERATION = "x-goog-generation"


class HttpError(Exception):
    """What gcsfs raises after it has tried a call again and again."""

    __module__ = "gcsfs.retry"


class Faults:
    """Calls that fail, one in so many, while `every` is set: the server then answers 503, the file system raises."""

    def __init__(self) -> None:
        self.every, self.count, self._chance = 0, 0, random.Random()

    @contextlib.contextmanager
    def one_in(self, every: int, seed: int) -> Iterator[None]:
        """Let calls fail inside the block; those that are drawn follow from the seed."""
        self.every, self.count, self._chance = every, 0, random.Random(seed)
        try:
            yield
        finally:
            self.every = 0

    def comes(self) -> bool:
        """Whether the next call fails."""
        comes = self.every > 0 and self._chance.randrange(self.every) == 0
        self.count += comes
        return comes


FAULTS = Faults()


class BucketFileSystem(fsspec.AbstractFileSystem):
    """The objects under a local root."""

    protocol = ("gs", "gcs")
    cachable = False

    def _place(self, path: str) -> pathlib.Path:
        if FAULTS.comes():
            raise HttpError("Service Unavailable, 503")
        return pathlib.Path(os.environ[ROOT_VARIABLE], self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        place = self._place(path)
        if not place.exists():
            raise FileNotFoundError(path)
        found = [self._info(entry) for entry in (sorted(place.iterdir()) if place.is_dir() else [place])]
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if not self._place(path).exists():
            raise FileNotFoundError(path)
        return self._info(self._place(path))

    def _info(self, place: pathlib.Path) -> dict[str, Any]:
        name = place.relative_to(os.environ[ROOT_VARIABLE]).as_posix()
        if place.is_dir():
            return {"name": name, "size": 0, "type": "directory"}
        return {"name": name, "size": place.stat().st_size, "type": "file", "mtime": place.stat().st_mtime}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether an object is there; as gcsfs, which does not take a call that failed for an answer."""
        try:
            return bool(self.info(path))
        except FileNotFoundError:
            return False

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Does nothing: an object store has no folders."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing: an object store has no folders."""

    def rmdir(self, path: str) -> None:
        """Does nothing: an object store has no folders."""

    def _rm(self, path: str) -> None:
        place = self._place(path)
        if place.is_file():  # a folder goes with its last object
            place.unlink()
            _remove_empty(place.parent)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        if not self._place(path1).is_dir():
            self._place(path2).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._place(path1), self._place(path2))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return open(self._place(path), "rb")
        if mode != "wb":
            raise io.UnsupportedOperation(f"an object cannot be opened with mode {mode}")
        return _Upload(self._place(path))


class _Upload(io.BytesIO):
    """An object that appears when it is closed, as an upload of fsspec does, whatever was raised before."""

    def __init__(self, place: pathlib.Path) -> None:
        super().__init__()
        self._target = place

    def close(self) -> None:
        if not self.closed:
            _put(self._target, self.getvalue())
        super().close()


def _put(place: pathlib.Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def _remove_empty(folder: pathlib.Path) -> None:
    """Removes folders that hold no object any more, since a store does not know of them."""
    root = pathlib.Path(os.environ[ROOT_VARIABLE])
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


class _Api(http.server.BaseHTTPRequestHandler):
    """What TensorStore asks of the JSON API (https://cloud.google.com/storage/docs/json_api/v1)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def parse_request(self) -> bool:
        """Reads a request; one that fails is answered here."""
        if not super().parse_request():
            return False
        if FAULTS.comes():
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._reply(503)
            return False
        return True

    def _request(self) -> tuple[pathlib.Path, str, dict[str, str]]:
        """Returns the bucket, the key of an object and the parameters."""
        url = urllib.parse.urlsplit(self.path)
        _, _, rest = url.path.partition("/b/")
        bucket, _, key = rest.partition("/o")
        root = pathlib.Path(os.environ[ROOT_VARIABLE])
        return root / bucket, urllib.parse.unquote(key.removeprefix("/")), dict(urllib.parse.parse_qsl(url.query))

    def _reply(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        bucket, key, parameters = self._request()
        if not key:
            self._list(bucket, parameters)
        elif not (bucket / key).is_file():
            self._reply(404)
        else:
            self._send(bucket / key)

    def _list(self, bucket: pathlib.Path, parameters: dict[str, str]) -> None:
        names = sorted(path.relative_to(bucket).as_posix() for path in bucket.rglob("*") if path.is_file())
        first, prefix = parameters.get("startOffset", ""), parameters.get("prefix", "")
        items = [_metadata(bucket, name) for name in names if name.startswith(prefix) and name >= first]
        self._reply(200, json.dumps({"items": items}).encode())

    def _send(self, path: pathlib.Path) -> None:
        data, headers = path.read_bytes(), {GENERATION: _generation(path)}
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first and not last:
            self._reply(200, data, headers)
            return
        start = int(first) if first else len(data) - int(last)
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._reply(206, data[start:end], headers)

    def do_POST(self) -> None:
        bucket, _, parameters = self._request()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = bucket / parameters["name"]
        if parameters.get("ifGenerationMatch", _generation(path)) != _generation(path):
            self._reply(412)
            return
        _put(path, data)
        self._reply(200, json.dumps(_metadata(bucket, parameters["name"])).encode())

    def do_DELETE(self) -> None:
        bucket, key, _ = self._request()
        if not (bucket / key).is_file():
            self._reply(404)
            return
        (bucket / key).unlink()
        _remove_empty((bucket / key).parent)
        self._reply(204)


def _generation(path: pathlib.Path) -> str:
    return str(path.stat().st_mtime_ns) if path.exists() else "0"


def _metadata(bucket: pathlib.Path, name: str) -> dict[str, str]:
    path = bucket / name
    size = str(path.stat().st_size)
    return {"name": name, "bucket": bucket.name, "size": size, "generation": _generation(path)}


def install() -> None:
    """Lets fsspec find the emulated buckets, under the protocols of Google's."""
    for protocol in BucketFileSystem.protocol:
        fsspec.register_implementation(protocol, BucketFileSystem, clobber=True)


@contextlib.contextmanager
def emulated_buckets(root: pathlib.Path) -> Iterator[None]:
    """Buckets under a folder, for this process and those that it starts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    paths = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    variables = {
        ROOT_VARIABLE: str(root),
        "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "PYTHONPATH": paths,
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    install()
    backend.fsspec_backend._get_filesystem.cache_clear()
    get_bucket = gcs_utils.get_bucket
    gcs_utils.get_bucket = lambda name: None  # Orbax asks Google's client whether a bucket has folders; these have none
    try:
        yield
    finally:
        gcs_utils.get_bucket = get_bucket
        for protocol in BucketFileSystem.protocol:
            _registry.pop(protocol, None)
        backend.fsspec_backend._get_filesystem.cache_clear()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        server.shutdown()
        thread.join()
        server.server_close()
