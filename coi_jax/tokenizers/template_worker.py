"""Render chat templates in a process that has little time and memory: they are programs that somebody else wrote.

`coi_jax.tokenizers.chat_template` starts this file as a program and asks it on standard input, one request after
another: four bytes with the length of a JSON object, and the object. A reply is one byte, which says whether the text
after it is a rendering or the reason why there is none, four bytes with the length of the text, and the text. What
exceeds the time ends the process.

The environment is that of `transformers` (`utils/chat_template_utils.py`), because a template may depend on each of
its settings: trimmed blocks, `break` and `continue`, `{% generation %}`, JSON without HTML escapes,
`raise_exception` and `strftime_now`.
"""

import contextlib
import functools
import json
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 2**29  # bytes, besides what this process has when it starts
MAX_SIZE = 1_000_000  # of what a template may multiply or raise to a power
MAX_BYTES = 2**24  # of a rendering
MAX_REASON = 1000  # characters
LENGTH = struct.Struct("<I")
RENDERED, STOPPED = b"=", b"!"


class _Generation(Extension):
    """Accepts `{% generation %} … {% endgeneration %}`, which marks what a model wrote and renders as its body."""

    tags = {"generation"}  # noqa: RUF012  (what Jinja asks for)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body of the block, with a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of `transformers`, which also refuses products and powers that would fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Return a product or power, unless it is too large.

        Args:
          context: the context of the rendering.
          operator: "*" or "**".
          left: the left operand.
          right: the right operand.
        """
        sizes = [abs(part) if isinstance(part, int | float) else len(part) for part in (left, right)]
        if (sizes[0] * sizes[1] if operator == "*" else sizes[0] ** min(sizes[1], MAX_SIZE.bit_length())) > MAX_SIZE:
            _raise(f"it makes something larger than {MAX_SIZE}")
        return super().call_binop(context, operator, left, right)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Raise at once; Jinja itself would print nothing where such an attribute stands alone."""
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__} is unsafe")


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    return _Environment().from_string(source)


def _answer(request: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the two parts of a reply: whether the template was rendered, and its text or why not."""
    try:
        template = _compile(request["source"])
        text = "" if request["given"] is None else template.render(**request["given"])
        data = text.encode("utf-8")
    except MemoryError:
        return STOPPED, f"it takes more than {MEMORY >> 20} MiB of memory".encode()
    except Exception as error:  # whatever a stranger's program brings about
        return STOPPED, _reason(error).encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        return STOPPED, f"it writes more than {MAX_BYTES >> 20} MiB".encode()
    return RENDERED, data


def _reason(error: Exception) -> str:
    reason = " ".join(str(error)[:MAX_REASON].split()).rstrip(".") or type(error).__name__
    return reason if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {reason}"


def _address_space() -> int:
    """Return the bytes of address space that this process has, of which some allocators reserve a lot at once."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return pages * resource.getpagesize()
    return 0


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when this one ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    with contextlib.suppress(ValueError, OSError):  # a system without such limits
        limit = _address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while header := sys.stdin.buffer.read(LENGTH.size):
        request = json.loads(sys.stdin.buffer.read(*LENGTH.unpack(header)))
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # of this process, so a busy machine does not matter
        kind, data = _answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(kind + LENGTH.pack(len(data)) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
