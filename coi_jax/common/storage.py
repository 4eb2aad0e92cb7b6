"""The path type of the project, for local files and buckets, and writes that appear whole or not at all.

Paths are `etils.epath.Path`: `runs/x` or `gs://bucket/runs/x`. A local file or folder is written under a hidden
temporary name beside its target and renamed when it is complete. An object store has no folders and no atomic rename
of several objects: a single object appears when its upload ends, and a folder is copied object by object with its
*marker file* (`manifest.json`, `cache.json`, `config.json`) last, so readers treat a folder without its marker as
absent, and `recover_folder` finishes what was interrupted. Object stores cannot append either: `AppendFile` uploads
the whole file again at intervals.
"""

import contextlib
import errno
import hashlib
import io
import os
import pathlib
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import fsspec
from etils import epath

from coi_jax.common import hub
from coi_jax.common.errors import UserError, naming
from coi_jax.common.exchange import exchange
from coi_jax.common.held_folder import claim, hold, is_held
from coi_jax.common.json_reader import HALF_A_PAIR, parse_field

PathLike = str | os.PathLike[str]

SCHEMES = {"gs": "gcs", "s3": "s3", "az": "az"}  # the URLs of buckets that epath knows, by fsspec's protocol
EXTRAS = {"gs": "gcs"}  # of this project, which install what reads them
BUFFER = 2**17  # bytes of a file that are read at once
BLOCK = 2**24  # bytes that are copied, compared or hashed at once
OLD = ".old"  # ends the temporary name of a folder that makes room for a new one
WHOLE = ".whole"  # the file in a temporary folder that says that nothing is missing in it
MARKERS = {"manifest.json": "dataset", "config.json": "run"}  # the file by which a folder is known
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk or a quota, which is nothing that is wrong with a path
UPLOAD_SECONDS = 60.0  # between uploads of a file that grows in a bucket

for _protocol in SCHEMES.values():  # a listing kept from before would hide what another process has written
    fsspec.config.conf.setdefault(_protocol, {}).setdefault("use_listings_cache", False)


def as_path(path: PathLike, field: str = "path") -> epath.Path:
    """Return a path, local or in a bucket.

    Args:
      path: a local path or a URL such as `gs://bucket/runs/x`.
      field: the name of the path in an error.

    Raises:
      UserError: it is empty, nothing installed here reads this kind of URL, or no path can be spelled so.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise UserError(field, path, "is no path; give it as text or as a pathlib.Path")
    if not os.fspath(path):
        raise UserError(field, "", "is empty; name a path")
    if "\0" in os.fspath(path):
        raise UserError(field, path, "holds a null character; correct the path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise UserError(field, path, HALF_A_PAIR) from None
    scheme, separator, _ = os.fspath(path).partition("://")
    if separator:
        reason = _unreadable_scheme(scheme)
        if reason:
            raise UserError(field, path, reason)
    return epath.Path(path)


def _unreadable_scheme(scheme: str) -> str:
    """Return why URLs of a scheme cannot be read here; "" where they can."""
    if f"{scheme}://" == hub.SCHEME:
        return "is in the Hub, from which weights, tokenizers and rows are read; name a local path or a bucket here"
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        return f"cannot be reached; name a local path, or a URL of one of {known}"
    try:
        fsspec.get_filesystem_class(SCHEMES[scheme])
    except (ImportError, ValueError) as error:
        extra = EXTRAS.get(scheme)
        return f"cannot be reached: {error}" + (f"; pip install 'coi-jax[{extra}]'" if extra else "")
    return ""


def is_local(path: PathLike) -> bool:
    """Return whether a path is on a local disk, or a mount that looks like one."""
    return "://" not in os.fspath(path)


def is_there(path: PathLike) -> bool:
    """Return whether there is something at a path: also a link that cannot be followed, which reading it will tell."""
    return os.path.lexists(path) if is_local(path) else bool(epath.Path(path).exists())


def is_file(path: PathLike) -> bool:
    """Return whether a path is that of a file, and of no pipe, which opening would wait for."""
    try:
        return not _not_a_file(epath.Path(path))
    except FileNotFoundError:
        return False


def local_path(path: PathLike, field: str, reason: str) -> pathlib.Path:
    """Return a path that has to be local as a `pathlib.Path`.

    Args:
      path: local, or a URL that is refused.
      field: the name of the path in an error.
      reason: why it cannot be in a bucket, as "is a SQLite database".

    Raises:
      UserError: the path is in a bucket.
    """
    if not is_local(path):
        raise UserError(field, path, f"{reason}, which cannot be in a bucket; name a local path")
    return pathlib.Path(path)


def absolute(path: PathLike, field: str = "path") -> epath.Path:
    """Return an absolute path; `epath.Path.resolve` would turn `gs://…` into a folder of the working directory.

    Args:
      path: as `as_path` takes it.
      field: the name of the path in an error.
    """
    checked = as_path(path, field)
    return checked.resolve() if is_local(path) else checked


def file_size(path: PathLike) -> int:
    """Return the bytes of a file (epath's own `stat` fails locally where the user has no entry in passwd)."""
    return os.stat(path).st_size if is_local(path) else int(epath.Path(path).stat().length)


def file_version(path: PathLike) -> str:
    """Return what changes with a file, cheaper to get than its bytes: its time, its size, a store's checksum."""
    if is_local(path):
        status = os.stat(path)
        return f"{status.st_mtime_ns} {status.st_size}"
    system, place = fsspec.url_to_fs(os.fspath(path))
    info = system.info(place)
    return " ".join(str(info.get(name)) for name in ("mtime", "updated", "generation", "etag", "size"))


def read_range(path: PathLike, start: int = 0, end: int | None = None) -> bytes:
    """Read a range of the bytes of a file, in one request of a bucket.

    Args:
      path: the file, local or in a bucket.
      start: the first byte.
      end: the byte after the last; None: the end of the file.
    """
    if is_local(path):
        with _open(path) as file:
            file.seek(start)
            return file.read() if end is None else file.read(end - start)
    system, place = fsspec.url_to_fs(os.fspath(path))
    return bytes(system.cat_file(place, start=start, end=end))


def stored_checksum(path: PathLike) -> str | None:
    """Return the checksum that an object store keeps of a file, as `crc32c:…`; None where it keeps none."""
    if is_local(path):
        return None
    system, place = fsspec.url_to_fs(os.fspath(path))
    info: dict[str, Any] = system.info(place)
    return next((f"{name}:{info[name]}" for name in ("crc32c", "md5Hash", "ETag", "etag") if name in info), None)


def file_identity(path: epath.Path, done: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file, or the checksum that its store keeps of it; call `done` after each block."""
    checksum = stored_checksum(path)
    if checksum is not None:
        return checksum
    digest = hashlib.sha256()
    with _open(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done()
    return digest.hexdigest()


class _InputFile(io.FileIO):
    """A local file that is read, whose name an error about reading has: the system itself says no name."""

    def readinto(self, buffer: Any) -> int | None:
        """Read into a buffer, as all methods of a buffered reader do."""
        with naming(self.name):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """Read to the end."""
        with naming(self.name):
            return super().readall()


def _open(path: PathLike) -> IO[bytes]:
    """Open a file for reading, local or in a bucket."""
    if is_local(path):
        return io.BufferedReader(_InputFile(os.fspath(path)), BUFFER)
    file: IO[bytes] = epath.Path(path).open("rb")
    return file


def open_input(path: PathLike, field: str = "file") -> IO[bytes]:
    """Open a file that a user named, for reading.

    Args:
      path: of the file.
      field: its name in an error.

    Raises:
      UserError: it is missing, cannot be opened, or is something else than a file.
    """
    place = as_path(path, field)
    try:
        reason = _not_a_file(place)
        if not reason:
            return _open(place)
    except OSError as error:
        reason = _unreadable(error)
    raise UserError(field, path, reason)


def _not_a_file(path: epath.Path) -> str:
    """Return why a local path is no file; "" where it is. A pipe is refused, since opening it would wait.

    Raises:
      FileNotFoundError: there is nothing at the path.
    """
    if not is_local(path):
        return ""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the path holds a null character
        return _unreadable(error)
    if stat.S_ISDIR(mode):
        return _unreadable(IsADirectoryError())
    return "" if stat.S_ISREG(mode) else "is a pipe or a device; name a file"


def _unreadable(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "no such file; check the path"
        case IsADirectoryError():
            return "is a folder; name a file"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"cannot be read ({reason}); check the path"


def list_files(folder: PathLike) -> list[str]:
    """Return the names of all files below a folder, relative to it and with slashes, in order."""
    if not is_local(folder):
        system, root = fsspec.url_to_fs(os.fspath(folder))
        names = (name.removeprefix(f"{root}/") for name in system.find(root))
        return sorted(names, key=pathlib.PurePosixPath)
    root = pathlib.Path(folder)
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]


def make_folder(folder: PathLike, field: str = "path") -> None:
    """Create a folder with its parents, where there is none.

    Args:
      folder: local or in a bucket.
      field: its name in an error.

    Raises:
      UserError: the system refuses to create it.
    """
    with writable(folder, field):
        as_path(folder, field).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writable(path: PathLike, field: str) -> Iterator[None]:
    """Raise UserError where the system refuses to write a local path inside the block; a full disk stays an OSError.

    That error names the path too.

    Args:
      path: that is written.
      field: its name in an error.
    """
    try:
        yield
    except OSError as error:
        _name_target(error, path)
        if not is_local(path) or error.errno in FULL:
            raise
        # A file where a folder is due, as an ancestor of the path, "exists" where the folder is made.
        is_file = isinstance(error, FileExistsError)
        reason = os.strerror(errno.ENOTDIR) if is_file else error.strerror or type(error).__name__
        raise UserError(field, path, f"cannot be written ({reason}); name another path") from None


def _name_target(error: BaseException, path: PathLike, partial: PathLike | None = None) -> None:
    """Let an error of the operating system name what the user asked to be written, in place of a temporary name.

    Args:
      error: any error; those of other kinds, and about other files, stay as they are.
      path: that is written.
      partial: its temporary name, if it has one.
    """
    if isinstance(error, OSError) and error.errno is not None:
        named = "" if error.filename is None else os.fspath(error.filename)
        if not named or (partial is not None and named.startswith(os.fspath(partial))):
            error.filename = os.fspath(path)


@contextlib.contextmanager
def atomic_file(path: PathLike, mode: str = "w", field: str = "out") -> Iterator[IO[Any]]:
    """Open a file for writing that appears at `path`, whole, only when the block ends without an exception.

    The folder is created. A failure (a full disk, an exception) leaves what was at `path` before.

    Args:
      path: of the file.
      mode: "w" for text, "wb" for bytes.
      field: the name of the path in an error.
    """
    target = as_path(path, field)
    opened = _renamed_file(target, mode, field) if is_local(target) else _uploaded_file(target, mode)
    with opened as file:
        yield file


@contextlib.contextmanager
def _renamed_file(target: epath.Path, mode: str, field: str) -> Iterator[IO[Any]]:
    with writable(target, field):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException as error:
        _name_target(error, target, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _uploaded_file(target: epath.Path, mode: str) -> Iterator[IO[Any]]:
    with local_writer(target) as path, open(path, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


@contextlib.contextmanager
def local_writer(target: PathLike) -> Iterator[pathlib.Path]:
    """Yield a local path for a library that writes local files alone; a target in a bucket gets the file at the end."""
    if is_local(target):
        yield pathlib.Path(target)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / as_path(target).name
        yield path
        copy_file(path, target)


@contextlib.contextmanager
def local_reader(path: PathLike) -> Iterator[pathlib.Path]:
    """Yield a local file with the bytes of another, for the time of a block."""
    if is_local(path):
        yield pathlib.Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / as_path(path).name
        copy_file(path, copy)
        yield copy


def local_copy(path: PathLike, name: str) -> pathlib.Path:
    """Return a local file with the bytes of another, for a library that reads local files alone.

    Args:
      path: of the file; a local one is returned as it is.
      name: where the copy is kept in the user's cache folder, for good; it follows from the content of the file.
    """
    if is_local(path):
        return pathlib.Path(path)
    copy = user_cache() / name
    if not copy.exists() or copy.stat().st_size != file_size(path):
        with atomic_file(copy, "wb") as writer, as_path(path).open("rb") as reader:
            shutil.copyfileobj(reader, writer, BLOCK)
    return copy


def user_cache() -> pathlib.Path:
    """Return the project's folder in the user's cache folder.

    Raises:
      UserError: the user has no home folder, as in a container, and no variable names another.
    """
    try:
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "coi_jax"
    except RuntimeError:
        hint = "is set to no folder, and this user has none; set it to a folder for what is kept between commands"
        raise UserError("XDG_CACHE_HOME", "", hint) from None


def copy_file(source: PathLike, target: PathLike) -> None:
    """Copy a file between a local disk and a bucket, in blocks."""
    with epath.Path(source).open("rb") as reader, epath.Path(target).open("wb") as writer:
        shutil.copyfileobj(reader, writer, BLOCK)


def _never(_: epath.Path) -> bool:
    return False


@contextlib.contextmanager
def atomic_folder(
    path: PathLike, *, marker: str, field: str = "out", replace: Callable[[epath.Path], bool] = _never
) -> Iterator[epath.Path]:
    """Yield a temporary folder that takes the name `path` when the block ends with `marker` in it.

    An exception, or a block that does not write the marker, leaves what stood at `path` before. Temporary folders that
    killed processes left are removed; in a bucket they stay, since nothing tells whether their process lives.

    Args:
      path: local or in a bucket; parent folders are created.
      marker: the file that says that the folder is whole; it is copied last in a bucket.
      field: the name of the folder in an error.
      replace: asked about what stands at `path` when the block ends; it is kept where the answer is false.

    Raises:
      UserError: there is something at `path` already, and no `replace` was given, or it cannot be written.
    """
    target = as_path(path, field)
    if is_there(target) and not target.exists():
        raise UserError(field, path, "is a link that cannot be followed; remove it, or name another folder")
    if is_local(target):
        target = epath.Path(os.path.realpath(target))  # of a link the folder is replaced that it leads to
    _remove_left_behind(target, marker)
    if replace is _never:
        check_absent(target, field)
    with _partial_folder(target, field) as partial:
        try:
            yield partial
            is_wanted = (partial / marker).exists()
            if is_wanted and replace is _never:
                check_absent(target, field)
            is_wanted = is_wanted and (not target.exists() or replace(target))
        except BaseException as error:
            _name_target(error, target, partial)
            remove_folder(partial)
            raise
        if is_wanted:
            (partial / WHOLE).touch()  # the marker may have been written before other files
            _finish(partial, target, marker)  # whose interruption leaves `partial` for `recover_folder`
        remove_folder(partial)


@contextlib.contextmanager
def _partial_folder(target: epath.Path, field: str) -> Iterator[epath.Path]:
    """Yield a new temporary neighbor of a folder; a local one is held, so that no other process removes it."""
    while True:
        partial = target.parent / f"{_prefix(target)}{uuid.uuid4().hex[:8]}"
        with writable(target, field):
            partial.mkdir(parents=True, exist_ok=True)
        handle = hold(os.fspath(partial)) if is_local(partial) else None
        if handle is not None or not is_local(partial):
            break
    try:
        yield partial
    finally:
        if handle is not None:
            os.close(handle)


def _remove_left_behind(target: epath.Path, marker: str) -> None:
    """Remove the temporary neighbors of a local folder whose processes have ended, but not the only whole folder."""
    if not is_local(target) or not target.parent.is_dir():
        return
    recover_folder(target, marker)
    for folder in _temporary_neighbors(target):
        with claim(os.fspath(folder)) as is_free:
            if is_free:
                remove_folder(folder)


def recover_folder(path: PathLike, marker: str) -> bool:
    """Finish what a process left undone that was killed while its whole new folder took the place of an old one.

    Args:
      path: of the folder.
      marker: as `atomic_folder`.

    Returns:
      Whether there was such a folder; it has its name then.
    """
    target = as_path(path)
    if (target / marker).exists() or not target.parent.is_dir():
        if is_local(target):  # of a process that was killed between the last two things it does
            (target / WHOLE).unlink(missing_ok=True)
        return False
    neighbors = [folder for folder in _temporary_neighbors(target) if _is_whole(folder, marker)]
    whole = [folder for folder in neighbors if not (is_local(folder) and is_held(os.fspath(folder)))]
    if not whole:
        return False
    partial = next((folder for folder in whole if not folder.name.endswith(OLD)), whole[0])
    _finish(partial, target, marker)
    for folder in whole:
        remove_folder(folder)
    return True


def _is_whole(folder: epath.Path, marker: str) -> bool:
    """Return whether a temporary folder is an old one that stood at its place, or a new one that was written whole."""
    is_whole: bool = (folder / marker).exists() and (folder.name.endswith(OLD) or (folder / WHOLE).exists())
    return is_whole


def _temporary_neighbors(target: epath.Path) -> list[epath.Path]:
    """Return the temporary folders that processes have made beside a folder for it."""
    temporary = re.compile(rf"{re.escape(_prefix(target))}[0-9a-f]{{8}}({re.escape(OLD)})?")
    return [folder for folder in target.parent.iterdir() if temporary.fullmatch(folder.name)]


def _prefix(target: epath.Path) -> str:
    """Return how the names of a folder's temporary neighbors begin."""
    return f".{target.name}."


def _finish(partial: epath.Path, target: epath.Path, marker: str) -> None:
    (_rename_folder if is_local(target) else _copy_objects)(partial, target, marker)
    if is_local(target):
        (target / WHOLE).unlink(missing_ok=True)


def check_not_kept(folder: PathLike, field: str) -> None:
    """Raise UserError where a folder is a file, or that of a dataset or a run, to which no other files are added.

    Args:
      folder: that a command is about to write into.
      field: what the user named it for.
    """
    path = as_path(folder, field)
    if path.exists() and not path.is_dir():
        raise UserError(field, folder, "is a file; name a folder")
    for marker, what in MARKERS.items():
        if (path / marker).exists():
            raise UserError(field, folder, f"is the folder of a {what}; name another folder")


def check_absent(path: epath.Path, field: str) -> None:
    """Raise UserError where there is something at a path, but for an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(field, path, "is there already; name a new folder")


def _rename_folder(partial: epath.Path, target: epath.Path, _: str) -> None:
    """Give a folder its name; one that stands there takes the temporary name, and is removed by the caller.

    Where the system cannot exchange two names, the old folder gets another name first: between the two renames neither
    stands at `target`, and `recover_folder` finds both.
    """
    if not target.exists():
        os.replace(partial, target)
    elif not exchange(os.fspath(partial), os.fspath(target)):
        old = partial.parent / f"{partial.name}{OLD}"
        os.replace(target, old)
        os.replace(partial, target)
        remove_folder(old)


def _copy_objects(partial: epath.Path, target: epath.Path, marker: str) -> None:
    """Copy a folder's objects, the marker last; the old folder loses its marker first, so it is never half new.

    `partial` stays whole until the end, so that the copying can be done again.
    """
    (target / marker).unlink(missing_ok=True)
    names = [name for name in list_files(partial) if name != WHOLE]
    for name in set(list_files(target)) - set(names):
        (target / name).unlink()
    system, source = fsspec.url_to_fs(os.fspath(partial))
    _, place = fsspec.url_to_fs(os.fspath(target))
    for name in sorted(names, key=lambda name: name == marker):
        system.cp_file(f"{source}/{name}", f"{place}/{name}")


def rename_folder(source: epath.Path, target: epath.Path) -> None:
    """Give a folder another name that is not taken; in a bucket object by object."""
    if is_local(source):
        os.replace(source, target)
        return
    system, place = fsspec.url_to_fs(os.fspath(source))
    _, new_place = fsspec.url_to_fs(os.fspath(target))
    for name in list_files(source):
        system.mv(f"{place}/{name}", f"{new_place}/{name}")


def remove_folder(path: epath.Path) -> None:
    """Remove a folder with all that it holds, where there is one."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.rmtree(missing_ok=True)


def upload_folder(source: pathlib.Path, target: epath.Path) -> None:
    """Copy the files of a local folder into a bucket."""
    for name in list_files(source):
        copy_file(source / name, target / name)


class AppendFile:
    """A UTF-8 file that grows line by line, local or in a bucket.

    A local file has each line as soon as it is written. An object cannot grow, so a bucket gets the whole file again
    once in `UPLOAD_SECONDS` and on `close`: a process that is killed loses the lines of the last minute.
    """

    def __init__(self, path: PathLike, field: str = "out") -> None:
        """Open or make a file; raise UserError, which calls the path `field`, where it cannot be written."""
        self._path = as_path(path, field)
        self._is_local = is_local(self._path)
        with writable(self._path, field):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._is_local:
                self._file: IO[str] = open(self._path, "a", encoding="utf-8")
                return
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._file.write(self._path.read_bytes().decode("utf-8") if self._path.exists() else "")
        self._uploaded, self._is_changed = time.monotonic(), False

    def __enter__(self) -> "AppendFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, text: str) -> None:
        """Append text and flush it, to the disk or once in a while to the bucket."""
        with naming(self._path):
            self._file.write(text)
            self._file.flush()
        if not self._is_local:
            self._is_changed = True
            if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
                self.upload()

    def upload(self) -> None:
        """Bring what was written into the bucket now; a local file has it already."""
        if self._is_local or not self._is_changed:
            return
        self._file.seek(0)
        self._path.write_bytes(self._file.read().encode("utf-8"))  # which leaves the position at the end
        self._uploaded, self._is_changed = time.monotonic(), False

    def close(self) -> None:
        """Close the file, after a last upload to a bucket."""
        self.upload()
        self._file.close()


class Folder:
    """A folder that a user named to read from, local, in a bucket or in the Hub, with errors that say how it was named.

    A repository of the Hub (`hf://org/name`) is downloaded, and read from where it is then.
    """

    def __init__(self, url: PathLike, field: str, patterns: tuple[str, ...] = hub.MODEL_FILES) -> None:
        """Name a folder.

        Args:
          url: a local path or a URL.
          field: the name of the folder in an error.
          patterns: the files of a repository of the Hub that are downloaded.

        Raises:
          UserError: nothing here reads this kind of URL.
        """
        self.url, self.field = os.fspath(url).rstrip("/"), field
        is_hub = hub.is_hub(self.url)
        self.path = epath.Path(hub.download(self.url, field, patterns)) if is_hub else as_path(self.url, field)

    def __str__(self) -> str:
        return self.url

    def at(self, name: str) -> epath.Path:
        """Return the path of a file."""
        return self.path / name

    def exists(self, name: str = "") -> bool:
        """Return whether there is such a file, or the folder itself."""
        return bool((self.path / name).exists())

    def names(self) -> list[str]:
        """Return the names of the files; raise UserError where there is no such folder."""
        if not self.path.is_dir():
            raise UserError(self.field, self.url, "no such folder; check the path")
        return sorted(path.name for path in self.path.iterdir() if not path.is_dir())

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return file_size(self.at(name))

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Read the bytes of a file from `start` to `end`.

        Args:
          name: of the file.
          start: the first byte.
          end: the byte after the last; the end of the file where None.

        Raises:
          UserError: the file is not there, or cannot be read.
        """
        try:
            reason = _not_a_file(self.at(name))
            if not reason:
                return read_range(self.at(name), start, end)
        except FileNotFoundError:
            reason = "no such file; the folder is not complete"
        raise UserError(self.field, f"{self.url}/{name}", reason)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; raise UserError where there is none."""
        value = parse_field(self.read(name), self.field, f"{self.url}/{name}")
        if not isinstance(value, dict):
            raise UserError(self.field, f"{self.url}/{name}", "not a JSON object; fetch it again")
        return value

    def identity(self, name: str, done: Callable[[], None] = lambda: None) -> str:
        """Return what tells a file from others; see `file_identity`."""
        return file_identity(self.at(name), done)
