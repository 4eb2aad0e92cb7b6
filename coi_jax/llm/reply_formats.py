"""The formats that a reply can be asked for in, and the fallback to a weaker one where an endpoint does not know it.

A question asks for a JSON schema, else for a JSON object with the schema beside its type, as llama.cpp's servers and
others take it, else for any JSON object, else for text: the prompts describe the form of the reply too. The address of
a reply is that of the call as it was asked for, whatever format the endpoint was sent in the end.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA, OBJECT, TEXT = "json_schema", "json_object", "text"
OBJECT_OF_SCHEMA = "json_object with a schema"
FORMATS = (SCHEMA, OBJECT_OF_SCHEMA, OBJECT, TEXT)  # from the strictest to the weakest
_ABOUT_FORMATS = re.compile(r"response.?format|json.?(schema|object|mode)|structured|guided|grammar", re.IGNORECASE)
Body = Mapping[str, Any]


def format_of(body: Body) -> str:
    """Return the format that a request asks for."""
    return str(body["response_format"]["type"]) if "response_format" in body else TEXT


def with_format(body: Body, name: str) -> dict[str, Any]:
    """Return a request that asks for a weaker format, or for its own."""
    if name == format_of(body):
        return dict(body)
    rest = {key: value for key, value in body.items() if key != "response_format"}
    if name == TEXT:
        return rest
    schema = {"schema": body["response_format"]["json_schema"]["schema"]} if name == OBJECT_OF_SCHEMA else {}
    return rest | {"response_format": {"type": OBJECT} | schema}


def is_about_formats(reason: str) -> bool:
    """Return whether an endpoint's reason for declining a call is the format of its reply."""
    return bool(_ABOUT_FORMATS.search(reason))


class ReplyFormats:
    """The formats that an endpoint is known to take or not to take."""

    def __init__(self) -> None:
        self._first = 0  # of FORMATS: stricter ones are not known to the endpoint
        self._accepted: set[str] = set()

    @property
    def has_answered(self) -> bool:
        """Return whether the endpoint has answered a call."""
        return bool(self._accepted)

    def to_try(self, body: Body) -> Iterator[str]:
        """Yield the formats to ask for, one after the other while the endpoint declines them."""
        wanted = FORMATS.index(format_of(body))
        yield from FORMATS[max(wanted, self._first) :]

    def may_be_unknown(self, name: str, *, is_named: bool) -> bool:
        """Return whether a weaker format may help where the endpoint declined a call in this one.

        Args:
          name: of the format.
          is_named: whether the endpoint's reason is the format.
        """
        return name != TEXT and (is_named or name not in self._accepted)

    def accept(self, name: str, body: Body, reason: str) -> None:
        """Keep to a format that the endpoint took; say so once where it declined the one that was asked for.

        Args:
          name: of the format.
          body: the request as it was asked for.
          reason: why the endpoint declined the stricter formats; "" where it did not.
        """
        self._accepted.add(name)
        if reason and FORMATS.index(name) > self._first:
            self._first = FORMATS.index(name)
            note_fallback(format_of(body), name, reason)


def note_fallback(asked: str, name: str, reason: str) -> None:
    """Say that replies are asked for in a weaker format.

    Args:
      asked: the format that the endpoint does not know.
      name: of the weaker one.
      reason: of the endpoint.
    """
    line = f"note: the endpoint takes no response_format {asked} ({reason}); asking for {name} instead"
    print(line, file=sys.stderr, flush=True)
