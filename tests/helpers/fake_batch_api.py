"""The files and batches of a test server, as the Batch API has them."""

import json
import re
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
LOOKS = 2  # at a batch, before it is done


class BatchDesk:
    """Takes files in, makes batches of them, and answers their lines.

    Args:
      answer: the status and the body of a reply to a request's body.
      escaped: whether its results are ASCII, with JSON's escapes.
      error_file: whether calls that failed stand in a file of their own.
    """

    def __init__(self, answer: Answer, *, escaped: bool = True, error_file: bool = False) -> None:
        self._answer, self._escaped, self._has_error_file = answer, escaped, error_file
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The reply to a request."""
        _, kind, *rest = path.partition("?")[0].split("/")
        if kind == "files" and method == "POST":
            return self._take(body)
        if kind == "files":
            return self._files[rest[0]]
        if method == "POST":
            return self._make(json.loads(body))
        if not rest:
            return json.dumps({"object": "list", "data": list(self._batches.values()), "has_more": False}).encode()
        return self._look(rest[0])

    def _take(self, body: bytes) -> bytes:
        """A file from a multipart form: its part is the one with a file name."""
        mark = body.partition(b"\r\n")[0]
        part = next(part for part in body.split(mark) if b"filename=" in part)
        name = f"file-{len(self._files)}"
        self._files[name] = re.split(rb"\r\n\r\n", part, maxsplit=1)[1].removesuffix(b"\r\n")
        return json.dumps(
            {
                "id": name,
                "object": "file",
                "bytes": 0,
                "created_at": 0,
                "filename": "calls.jsonl",
                "purpose": "batch",
                "status": "processed",
            }
        ).encode()

    def _make(self, wanted: dict[str, Any]) -> bytes:
        name = f"batch-{len(self._batches)}"
        self._batches[name] = {"id": name, "object": "batch", "created_at": 0, "status": "in_progress"} | wanted
        self._looks[name] = 0
        return json.dumps(self._batches[name]).encode()

    def _look(self, name: str) -> bytes:
        batch = self._batches[name]
        self._looks[name] += 1
        if batch["status"] == "in_progress" and self._looks[name] >= LOOKS:
            lines = self._files[batch["input_file_id"]].decode().splitlines()
            found = [self._line(line) for line in lines]
            good = [line for line, status in found if status == 200 or not self._has_error_file]
            bad = [line for line, status in found if status != 200 and self._has_error_file]
            self._files |= {f"{name}-out": "".join(good).encode(), f"{name}-errors": "".join(bad).encode()}
            batch |= {"status": "completed", "output_file_id": f"{name}-out" if good else None}
            batch |= {"error_file_id": f"{name}-errors" if bad else None}
        return json.dumps(batch).encode()

    def _line(self, line: str) -> tuple[str, int]:
        call = json.loads(line)
        status, body = self._answer(call["body"])
        result = {"custom_id": call["custom_id"], "response": {"status_code": status, "body": body}}
        return json.dumps(result, ensure_ascii=self._escaped) + "\n", status
