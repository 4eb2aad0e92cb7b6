"""Repositories of the Hugging Face Hub, as `hf://org/name[@revision]` and `hf://datasets/org/name[@revision][/path]`.

Files come through `huggingface_hub` into its cache: a download that is interrupted goes on where it stopped, and what
is there is not fetched again. `pin` names the commit that a branch points to, which runs and datasets record.
`HF_ENDPOINT`, `HF_HUB_CACHE` and the user's token hold as for any tool of the Hub.
"""

import functools
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from coi_jax.common.errors import UserError, shorten

SCHEME, DATASETS = "hf://", "datasets/"
AGAIN = "run the command again to go on where there is a network, or name a local folder"
COMMIT = re.compile("[0-9a-f]{40}")
# What is read of a model: never what holds code or pickled objects.
SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
MODEL_FILES = (*SMALL_FILES, "*.safetensors")


class HubUrl(NamedTuple):
    """The parts of a URL; `revision` is None where none is named, `path` is within the repository."""

    kind: str  # "model" or "dataset"
    name: str
    revision: str | None
    path: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return (
            f"{SCHEME}{DATASETS if self.kind == 'dataset' else ''}{self.name}{revision}{self.path and '/'}{self.path}"
        )

    @property
    def is_pinned(self) -> bool:
        """Return whether the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision or "") is not None


def is_hub(url: str) -> bool:
    """Return whether a path that a user gave is in the Hub."""
    return url.startswith(SCHEME)


def parse(url: str, field: str) -> HubUrl:
    """Return the parts of a URL; raise UserError where it names no repository."""
    rest = url.removeprefix(SCHEME)
    kind = "dataset" if rest.startswith(DATASETS) else "model"
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.%-]+))?(?:/(.+?))?/*", rest.removeprefix(DATASETS))
    if not found or ".." in rest:
        raise UserError(field, url, "names no repository; write hf://org/name or hf://org/name@revision")
    return HubUrl(kind, found[1], found[2] and found[2].replace("%2F", "/"), found[3] or "")


def pin(url: str, field: str, patterns: tuple[str, ...] = MODEL_FILES) -> str:
    """Return the URL of what was downloaded, with the commit that its revision pointed to.

    Args:
      url: of a repository.
      field: its name in an error.
      patterns: see `download`.

    Raises:
      UserError: see `download`.
    """
    parts = parse(url, field)
    return url if parts.is_pinned else str(parts._replace(revision=download(url, field, patterns).name))


def is_pin_of(pinned: str, url: str) -> bool:
    """Return whether a URL with a commit may be what `pin` made of another: the same repository, whose branch moves."""
    if not (is_hub(pinned) and is_hub(url)):
        return False
    one, other = parse(pinned, "path"), parse(url, "path")
    return one.is_pinned and not other.is_pinned and one._replace(revision=None) == other._replace(revision=None)


@functools.cache
def download(url: str, field: str, patterns: tuple[str, ...] = MODEL_FILES) -> pathlib.Path:
    """Return a local folder with the files of a repository, named by their commit; without a network, the last such.

    Args:
      url: of a repository.
      field: its name in an error.
      patterns: of the names of the files that are fetched.

    Raises:
      UserError: there is no such repository, it may not be read, or cannot be reached.
    """
    parts = parse(url, field)
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        hint = "is fetched by a package that is not installed; pip install 'coi-jax[hub]'"
        raise UserError(field, url, hint) from None
    if not sys.stderr.isatty():  # a log has no use for bars
        disable_progress_bars()
    with _one_line_errors(url, field):
        folder = huggingface_hub.snapshot_download(
            parts.name,
            repo_type=parts.kind,
            revision=parts.revision,
            allow_patterns=list(patterns),
            # The library reads these variables once, when it is imported.
            endpoint=os.environ.get("HF_ENDPOINT"),
            cache_dir=os.environ.get("HF_HUB_CACHE"),
        )
    return pathlib.Path(folder)


@contextmanager
def _one_line_errors(url: str, field: str) -> Iterator[None]:
    """Turn what the library raises into one line that says what to do."""
    try:
        yield
    except (OSError, ValueError) as error:  # its own errors are kinds of these, as are those of `requests`
        raise UserError(field, url, _reason(error)) from None


def _reason(error: Exception) -> str:
    match type(error).__name__:
        case "GatedRepoError":
            return "is gated; accept its terms on its page, then log in (huggingface-cli login, or set HF_TOKEN)"
        case "RepositoryNotFoundError":
            return "no such repository, or a private one; check the name, or log in (huggingface-cli login)"
        case "RevisionNotFoundError":
            return "has no such revision; name a branch, a tag or a commit that it has"
        case "HfHubHTTPError" | "HTTPError":
            return f"the Hub answers with an error ({str(error).partition(chr(10))[0]}); try again"
        case "LocalEntryNotFoundError":
            why = "the Hub does not answer from here, and its cache on this machine does not have the files"
            return f"cannot be reached ({why}); {AGAIN}"
    why = shorten(str(error).partition("\n")[0], 150) or "the connection failed"
    return f"cannot be reached ({why}); {AGAIN}"
