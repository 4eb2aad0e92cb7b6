"""Imports of packages without others that they would load."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def not_importable(name: str) -> Iterator[None]:
    """Let a package seem not to be installed within the context, unless it is imported already.

    It is for packages that load a heavy one where they find it and do without it elsewhere.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # which is how the import system marks what cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
