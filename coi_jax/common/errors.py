"""The one error that the user can correct, and what errors of others say of files and addresses."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator

LISTED = 40  # names that a hint lists, at most
LONGEST_FIELD, LONGEST_HINT = 200, 2000  # characters: a hint may quote what somebody else wrote


@contextlib.contextmanager
def naming(name: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of the operating system in the block that names no file name this one.

    The system itself names none where a file that is open is read or written.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(name)
        raise


class UserError(ValueError):
    """A mistake in what the user gave: a field, the value found there, and how to correct it.

    Command lines print it as one line and exit with status 2 (`coi_jax.common.cli.run`).
    """

    def __init__(self, field: str, value: object, hint: str) -> None:
        self.field, self.value, self.hint = one_line(field, LONGEST_FIELD), value, one_line(hint, LONGEST_HINT)
        super().__init__(f"{self.field}: {shorten(value)}: {self.hint}")


def shorten(value: object, limit: int = 400) -> str:
    """Return the `repr` of a value, on one line, cut in the middle where it is longer than `limit` characters."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    return _cut(value if isinstance(value, str) and value and value.isprintable() else _repr(value), limit)


def one_line(text: str, limit: int) -> str:
    r"""Return a text as part of a message: line breaks as spaces, what no terminal prints as `\x1b`, and not long.

    Args:
      text: which may quote what somebody else wrote, or the message of another error.
      limit: characters that are left, from its beginning and its end.
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", text)
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return _cut(text, limit)


def without_password(text: str) -> str:
    """Return a text whose addresses have neither a user nor a password, as those of proxies and servers may."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def _repr(value: object) -> str:
    """Return the `repr` of a value; its type where it has none, as an object of any class may, or a list in itself."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def nearest(name: str, known: list[str]) -> str:
    """Return a hint about an unknown name: the closest known one, or all of them where they are few.

    `coi0` is no misspelling of `coi3`: a name of another number is not close.
    """
    alike = [each for each in known if not _has_other_number(name, each)]
    close = difflib.get_close_matches(name, alike, n=1, cutoff=0.6)
    if close:
        return f"unknown; did you mean {close[0]!r}?"
    if len(known) > LISTED:
        known = difflib.get_close_matches(name, known, n=5, cutoff=0.0)
        return f"unknown; the nearest known names are {', '.join(known)}"
    return f"unknown; one of {', '.join(known)}"


def _has_other_number(name: str, other: str) -> bool:
    """Return whether two names differ in their digits alone, and each has one that the other lacks."""
    if re.sub("[0-9]", "", name) != re.sub("[0-9]", "", other):
        return False
    digits, others = set(re.findall("[0-9]", name)), set(re.findall("[0-9]", other))
    return bool(digits - others and others - digits)


def not_as_written(module: str, error: Exception) -> str:
    """Return a hint about a JSON file in which a reader did not find what a command writes there.

    Args:
      module: of the command, as "coi_jax.evaluate".
      error: what the reader met: a KeyError, or an error about the kind of a value.
    """
    found = f"it has no {error}" if isinstance(error, KeyError) else "it holds values of other kinds"
    return f"not as python -m {module} writes it: {found}; run it again"
