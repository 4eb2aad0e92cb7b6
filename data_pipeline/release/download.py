"""Downloads the official release at its pinned commit; run again to go on where it stopped."""

import http.client
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from coi_jax.common.errors import UserError
from coi_jax.common.progress import Bar
from coi_jax.common.storage import make_folder, user_cache
from data_pipeline.release.release_files import CHECKSUMS, COMMIT, git_blob

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 1.0  # before the second attempt; each later pause is twice as long
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 16
RANGE_NOT_SATISFIABLE = 416
_CONNECTION_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


def default_folder() -> Path:
    """Return the folder of downloads: in the user's cache folder, by commit."""
    return user_cache() / f"coi_release-{COMMIT[:12]}"


def download(folder: Path, base_url: str, checksums: Mapping[str, str] = CHECKSUMS) -> Path:
    """Download every file of the release that `folder` does not hold yet, and return `folder`.

    Args:
      folder: gets `train/…` and `test/…`; unfinished files end in `.part`.
      base_url: serves the same paths.
      checksums: the git object id of each path.

    Raises:
      UserError: `base_url` is no web address, a file is not served, the connection keeps failing, or a checksum
        differs; what came stays.
    """
    parts = urllib.parse.urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError("base_url", base_url, "is no web address; write http://… or https://…")
    missing = {path: blob for path, blob in checksums.items() if not _is_whole(folder / path, blob)}
    with Bar("downloading files", len(checksums), done=len(checksums) - len(missing)) as bar:
        for path, blob in missing.items():
            bar.advance(0, note=path)
            _fetch(f"{base_url.rstrip('/')}/{path}", folder / path, blob)
            bar.advance(1, note=path)
    return folder


def _is_whole(path: Path, blob: str) -> bool:
    return path.is_file() and git_blob(path) == blob


def _fetch(url: str, target: Path, blob: str) -> None:
    """Download one file, check it, and only then give it its name."""
    make_folder(target.parent, "download_folder")
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _transfer_with_retries(url, part)
    if resumed and git_blob(part) != blob:
        # What an earlier run left may itself be spoilt: once more from the start.
        part.unlink()
        _transfer_with_retries(url, part)
    found = git_blob(part)
    if found != blob:
        part.unlink()
        raise UserError(
            "download",
            url,
            f"checksum is {found}, not {blob}: the file was changed on the way or at its "
            "source; try again, or name a folder with --src",
        )
    os.replace(part, target)


def _transfer_with_retries(url: str, part: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _transfer(url, part)
        except urllib.error.HTTPError as error:
            if error.code not in _WORTH_ANOTHER_TRY:
                raise UserError(
                    "download", url, f"the server says {error.code} {error.reason}; check --base_url"
                ) from None
            reason = f"{error.code} {error.reason}"
        except _CONNECTION_ERRORS as error:
            reason = str(getattr(error, "reason", error))
        if attempt < ATTEMPTS:
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    raise UserError("download", url, f"failed {ATTEMPTS} times ({reason}); what came is kept: run again to go on")


def _transfer(url: str, part: Path) -> None:
    """Append to `part` what it lacks; raises IncompleteRead where the server stops early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        reply = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == RANGE_NOT_SATISFIABLE:
            return  # nothing is left to fetch; the checksum decides
        raise
    with reply, open(part, "ab" if reply.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
        expected = reply.length
        received = 0
        while chunk := reply.read(CHUNK_BYTES):
            file.write(chunk)
            received += len(chunk)
    if expected is not None and received < expected:
        raise http.client.IncompleteRead(b"", expected - received)
