"""The files and batches of a test server, as the Batch API has them."""

import json
import re
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
LOOKS = 2  # at a batch, before it is done


class BatchDesk:
    """Takes files in, makes batches of them, and answers their lines."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
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
            self._files[f"{name}-out"] = "".join(map(self._line, lines)).encode()
            batch |= {"status": "completed", "output_file_id": f"{name}-out"}
        return json.dumps(batch).encode()

    def _line(self, line: str) -> str:
        call = json.loads(line)
        status, body = self._answer(call["body"])
        return json.dumps({"custom_id": call["custom_id"], "response": {"status_code": status, "body": body}}) + "\n"
