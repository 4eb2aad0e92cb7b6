"""The lines of a batch's result files: each is a reply, a call that was declined, or a failure."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from coi_jax.common.errors import shorten
from coi_jax.llm.calls import UNUSABLE, Reply, unusable_reply
from coi_jax.llm.endpoint import KEPT_BYTES, MOST_BYTES
from coi_jax.llm.failures import DECLINED, Busy, Declined, EndpointError, is_lost
from coi_jax.llm.reply_bodies import CHOICES, ErrorInBody, reply_of

_KEY = re.compile(r"[0-9a-f]{64}")  # of a call, which its line has as `custom_id`
_KEY_IN_LINE = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Failure:
    """A call without a reply, which is to be asked again; `lost` says that it may have been charged for."""

    reason: str
    lost: bool = False


@dataclass(frozen=True)
class Line:
    """What became of a call; `key` is "" where the line does not name one."""

    key: str
    outcome: Reply | Declined | Failure


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield the lines of a file that comes in chunks, with their ends; of longer lines only the first `MOST_BYTES`.

    Only "\n" ends a line: JSON text may hold U+2028, U+0085 and other separators as they are.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk[: MOST_BYTES + 1 - len(rest)],)
        yield from (line[:MOST_BYTES] + b"\n" for line in whole)
    if rest.strip():
        yield rest


def read_line(data: bytes) -> Line:
    """Return what a line of a result file says."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        return _unreadable(data, f"{UNUSABLE}: {shorten(str(error), 200)}")
    key = row.get("custom_id") if isinstance(row, dict) else None
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        return Line("", Failure("a result that names no call"))
    response = row.get("response")
    return Line(key, _outcome(response if isinstance(response, dict) else {}, row.get("error"), data))


def _unreadable(data: bytes, fault: str) -> Line:
    """Return the line of a reply that cannot be read: a whole chat completion is kept, as it is paid for."""
    found = _KEY_IN_LINE.search(data[:KEPT_BYTES])
    if not found or not data.endswith(b"\n") or CHOICES not in data:
        return Line(found[1].decode() if found else "", Failure("an unreadable result", lost=True))
    return Line(found[1].decode(), unusable_reply(data[:KEPT_BYTES], fault))


def _outcome(response: dict[str, Any], error: Any, data: bytes) -> Reply | Declined | Failure:
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        message = _message(body) or _message(error) or "no reason"
        reason = f"status {status} ({shorten(message, 200)})"
        return Declined(reason) if status in DECLINED else Failure(reason)
    try:
        return reply_of(body, data)
    except ErrorInBody as told:
        return _told(told.error)
    except Busy as busy:
        return Failure(str(busy), lost=busy.lost)


def _told(error: EndpointError) -> Declined | Failure:
    """Return what an error in the body of a result means."""
    return Declined(error.reason) if error.status in DECLINED else Failure(error.reason, lost=is_lost(error))


def _message(body: Any) -> str:
    """Return the message of an error; "" where there is none."""
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error or "")
