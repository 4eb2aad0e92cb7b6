"""Chat templates of published models: untrusted Jinja, rendered by a process of its own with limits.

One such process serves all templates of this process: `coi_jax.tokenizers.template_worker` says how they are rendered.
A rendering that exceeds its time ends that process, and the next one starts another.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from coi_jax.common.child_processes import without_secrets
from coi_jax.common.errors import UserError
from coi_jax.tokenizers.template_worker import LENGTH, RENDERED

Message = dict[str, str]  # "role" and "content"

MAX_SECONDS = 5.0  # of CPU time for one rendering; a usual one takes a thousandth of one
_PROGRAM = Path(__file__).with_name("template_worker.py")


class TemplateError(Exception):
    """A template is not rendered; the message says why."""


class _Worker:
    """The process that renders; threads take turns. It is started by the first request, and ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def render(self, request: Mapping[str, Any]) -> str:
        """Return the text of a rendering; raise TemplateError where there is none."""
        data = json.dumps({**request, "seconds": MAX_SECONDS}).encode()
        with self._lock:
            process = self._process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(LENGTH.pack(len(data)) + data)
                process.stdin.flush()
                kind = _read(process.stdout, len(RENDERED))
                text = _read(process.stdout, *LENGTH.unpack(_read(process.stdout, LENGTH.size))).decode("utf-8")
            except (EOFError, BrokenPipeError):
                raise TemplateError(self._ended(process)) from None
            except BaseException:  # as an interrupt: the next request must not get the reply to this one
                self.close()
                raise
        if kind != RENDERED:
            raise TemplateError(text)
        return text

    def _start(self) -> "subprocess.Popen[bytes]":
        # -P: the folder of the program is no place to import from.
        command = [sys.executable, "-P", str(_PROGRAM)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            env=without_secrets(os.environ),
        )

    def _ended(self, process: "subprocess.Popen[bytes]") -> str:
        """Return why the process ended in the middle of a request."""
        self.close()
        if process.returncode == -signal.SIGPROF:
            return f"it takes longer than {MAX_SECONDS:g} seconds"
        return f"it ends the process that renders it (status {process.returncode})"

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _forget(self) -> None:
        """Leave the process to the parent of this one, which was forked."""
        self._lock, self._process = threading.Lock(), None


def _read(file: IO[bytes], size: int) -> bytes:
    """Read exactly so many bytes; raise EOFError where there are fewer."""
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


_WORKER = _Worker()


class ChatTemplate:
    """A chat template, compiled once.

    Args:
      source: the Jinja text.
      variables: what it may refer to besides the messages: the special tokens by name, as `bos_token`.
      where: the name of the template in errors.

    Raises:
      UserError: the text is not valid Jinja.
    """

    def __init__(self, source: str, variables: Mapping[str, Any], where: str) -> None:
        self._source, self._variables, self._where = source, dict(variables), where
        self._ask(None)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Render a conversation.

        Args:
          messages: each with a "role" and a "content".
          add_generation_prompt: end with the beginning of the model's answer.

        Raises:
          UserError: the template raises, takes too much time or memory, or accesses what it must not.
        """
        given = {
            "messages": list(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._ask(self._variables | given)

    def _ask(self, given: Mapping[str, Any] | None) -> str:
        """Return the rendering with some variables; only compile the template where they are None."""
        try:
            return _WORKER.render({"source": self._source, "given": given})
        except TemplateError as error:
            hint = f'stops: {error}; fix it, or choose config.data.template = "plain" or "alpaca"'
            raise UserError("chat template", self._where, hint) from None
