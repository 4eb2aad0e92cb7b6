"""Chat templates of published models: untrusted Jinja, rendered in a sandbox.

The environment is that of `transformers` (`utils/chat_template_utils.py`), because a template may depend on each of
its settings: trimmed blocks, `break` and `continue`, `{% generation %}`, JSON without HTML escapes,
`raise_exception` and `strftime_now`. Unlike there, a rendering that takes too long is stopped.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from coi_jax.common.errors import UserError

Message = dict[str, str]  # "role" and "content"

MAX_SECONDS = 5.0  # seconds of one rendering; a usual one takes a thousandth of one
MAX_SIZE = 1_000_000  # of what a template may multiply or raise to a power


class _Generation(Extension):
    """Accepts `{% generation %} … {% endgeneration %}`, which marks what a model wrote and renders as its body."""

    tags = {"generation"}  # noqa: RUF012  (what Jinja asks for)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body of the block, with a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that checks the time in every pass of a loop and every call of a macro."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self._clock = threading.local()

    def start(self) -> None:
        """Start the clock of this thread, in CPU time, so that a busy machine does not matter."""
        self._clock.end = time.thread_time() + MAX_SECONDS

    def tick(self) -> str:
        """Return an empty string; raise where the time is over."""
        if time.thread_time() > self._clock.end:
            _raise(f"it takes longer than {MAX_SECONDS:g} seconds")
        return ""

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

    def compile_timed(self, source: str) -> jinja2.Template:
        """Compile a template with a call of `tick` at the start of every loop's and every macro's body."""
        template = self.parse(source)
        blocks: list[nodes.For | nodes.Macro] = [*template.find_all(nodes.For), *template.find_all(nodes.Macro)]
        for block in blocks:
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            block.body.insert(0, nodes.Output([tick]))
        template.set_lineno(1)
        template.set_environment(self)
        return self.from_string(template)


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
        self._variables, self._where = dict(variables), where
        self._environment = _Environment()
        try:
            self._template = self._environment.compile_timed(source)
        except Exception as error:  # whatever a stranger's text brings about
            raise self._stopped(error) from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Render a conversation.

        Args:
          messages: each with a "role" and a "content".
          add_generation_prompt: end with the beginning of the model's answer.

        Raises:
          UserError: the template raises, takes too long or accesses what it must not.
        """
        self._environment.start()
        given = {
            "messages": list(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(**self._variables | given)
        except Exception as error:  # whatever a stranger's program brings about
            raise self._stopped(error) from None

    def _stopped(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if not isinstance(error, jinja2.TemplateError):
            reason = f"{type(error).__name__}: {reason}"
        hint = f'stops: {reason}; fix it, or choose config.data.template = "plain" or "alpaca"'
        return UserError("chat template", self._where, hint)
