"""Marks around text from data in a prompt, so that a model takes it for data."""

import hashlib


def fence(name: str, text: str) -> str:
    r"""Return a text between marks that it cannot hold, as they are named by a hash of it.

    Example: `("input", "a b")` → `<<input c8687a08aa5d\na b\nc8687a08aa5d input>>`.
    """
    mark = hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
    return f"<<{name} {mark}\n{text}\n{mark} {name}>>"
