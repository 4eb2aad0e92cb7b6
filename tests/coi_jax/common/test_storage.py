import contextlib
import errno
import hashlib
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import fsspec
import pytest
from etils import epath

from coi_jax.common import files, storage
from coi_jax.common.errors import UserError
from coi_jax.common.exchange import exchange
from coi_jax.common.folder_lock import folder_lock
from coi_jax.common.storage import (
    WHOLE,
    AppendFile,
    Folder,
    as_path,
    atomic_file,
    atomic_folder,
    check_not_kept,
    recover_folder,
)
from tests.helpers.bucket import BucketFileSystem
from tests.helpers.paths import ROOT

MARKER = "manifest.json"
UNREADABLE = pathlib.Path("/proc/self/mem")  # which can be opened, and whose first byte is an input/output error


@pytest.fixture(params=["local", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> epath.Path:
    """A folder to write into, on disk and in a bucket."""
    return epath.Path(tmp_path / "disk") if request.param == "local" else epath.Path(request.getfixturevalue("bucket"))


def tree(folder: epath.Path) -> dict[str, bytes]:
    """All files below a folder."""
    if not folder.exists():
        return {}
    found: dict[str, bytes] = {}
    for path in folder.iterdir():
        if path.is_dir():
            found |= {f"{path.name}/{name}": data for name, data in tree(path).items()}
        else:
            found[path.name] = path.read_bytes()
    return found


def test_a_url_stays_a_url(bucket: str) -> None:
    path = as_path(f"{bucket}/runs") / "x"
    assert str(path) == f"{bucket}/runs/x"
    assert str(storage.absolute(path)) == str(path)
    assert not storage.is_local(path)
    assert storage.is_local(storage.absolute("runs"))
    assert storage.absolute("runs").is_absolute()


def test_a_path_with_a_null_character_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"workdir: .*: holds a null character"):
        as_path("runs/a\0b", "workdir")


@pytest.mark.parametrize("url", ["ftp://host/x", "memory://x"])
def test_an_unknown_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"workdir: .*: cannot be reached; .*gs://"):
        as_path(url, "workdir")


def test_the_hub_is_no_folder_to_write_to() -> None:
    with pytest.raises(
        UserError, match=r"out: hf://org/name: is in the Hub, from which .* are read; name a local path"
    ):
        as_path("hf://org/name", "out")


def test_a_link_that_cannot_be_followed_is_refused_before_anything_is_written(tmp_path: pathlib.Path) -> None:
    for name, end in {"loop": "loop", "dangling": "nothing"}.items():
        (tmp_path / name).symlink_to(end)
        refused = pytest.raises(UserError, match=r"out: .*: is a link that cannot be followed")
        with refused, atomic_folder(tmp_path / name, marker=MARKER, replace=lambda _: True):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "loop"]


def test_listings_of_buckets_are_never_stale(bucket: str) -> None:
    system, _ = fsspec.url_to_fs(bucket)
    assert system.dircache.use_listings_cache is False


def test_what_has_to_be_local_is_said(bucket: str, tmp_path: pathlib.Path) -> None:
    assert storage.local_path(tmp_path, "store", "is a SQLite database") == tmp_path
    with pytest.raises(UserError, match=r"store: .*: is a SQLite database, which cannot be in a bucket; name a local"):
        storage.local_path(f"{bucket}/x", "store", "is a SQLite database")


def test_a_file_appears_whole_or_not_at_all(root: epath.Path) -> None:
    path = root / "deep" / "file.txt"
    files.write_text(path, "é before")
    with pytest.raises(OSError, match="full"), atomic_file(path) as file:  # noqa: PT012
        file.write("half of it")
        raise OSError(28, "disk full")
    assert files.read_text(path) == "é before"
    assert tree(root) == {"deep/file.txt": "é before".encode()}
    assert files.sha256(path) == hashlib.sha256("é before".encode()).hexdigest()
    assert storage.file_size(path) == len("é before".encode())
    assert storage.read_range(path, 3, 5) == b"be"


def test_errors_of_files_are_the_same_in_a_bucket(root: epath.Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        files.read_json(root / "none.json")
    with pytest.raises(UserError, match="no such file"):
        list(files.read_jsonl(root / "none.jsonl"))
    files.write_bytes(root / "bad.json", b'{"a": [1')
    with pytest.raises(UserError, match=r"bad\.json:1: not JSON"):
        files.read_json(root / "bad.json")


def test_a_folder_appears_whole_or_not_at_all(root: epath.Path) -> None:
    target = root / "deep" / "data"
    with pytest.raises(RuntimeError, match="killed"), atomic_folder(target, marker=MARKER) as folder:  # noqa: PT012
        files.write_text(folder / "train.jsonl", "half")
        raise RuntimeError("killed")
    assert not target.exists()
    with atomic_folder(target, marker=MARKER) as folder:
        files.write_text(folder / "inner" / "train.jsonl", "rows")
        files.write_text(folder / MARKER, "{}")
        assert not target.exists()
    assert tree(root) == {"deep/data/inner/train.jsonl": b"rows", f"deep/data/{MARKER}": b"{}"}


def test_a_link_stays_a_link_to_what_is_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "link", marker=MARKER, replace=lambda _: True) as folder:
            files.write_text(folder / MARKER, content)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / MARKER).read_text(encoding="utf-8") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_is_replaced_only_where_that_is_allowed(root: epath.Path) -> None:
    target = root / "data"
    for number in range(2):
        with atomic_folder(target, marker=MARKER, replace=lambda _: True) as folder:
            files.write_text(folder / f"{number}.jsonl", str(number))
            files.write_text(folder / MARKER, "{}")
    assert tree(root) == {"data/1.jsonl": b"1", f"data/{MARKER}": b"{}"}
    already = pytest.raises(UserError, match=r"out: .*: is there already; name a new folder")
    with already, atomic_folder(target, marker=MARKER):
        pytest.fail("the block must not run")
    with atomic_folder(target, marker=MARKER, replace=lambda _: False) as folder:
        files.write_text(folder / MARKER, "another")
    assert tree(root) == {"data/1.jsonl": b"1", f"data/{MARKER}": b"{}"}


def test_in_a_bucket_the_marker_comes_last(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that is killed in its midst leaves a folder without its marker, which readers take for absent."""
    target, copy, moved = epath.Path(bucket) / "data", BucketFileSystem.cp_file, []
    with atomic_folder(target, marker=MARKER) as folder:
        files.write_text(folder / MARKER, "old")

    def killed_at_the_third(self: BucketFileSystem, path1: str, path2: str, **options: object) -> None:
        moved.append(path2)
        if len(moved) == 3:
            raise KeyboardInterrupt
        copy(self, path1, path2, **options)

    monkeypatch.setattr(BucketFileSystem, "cp_file", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, marker=MARKER, replace=lambda _: True) as folder:  # noqa: PT012
        files.write_text(folder / MARKER, "new")
        files.write_text(folder / "a.jsonl", "a")
        files.write_text(folder / "z.jsonl", "z")
    assert tree(target) == {"a.jsonl": b"a", "z.jsonl": b"z"}
    assert moved[-1].endswith(MARKER)
    monkeypatch.undo()
    assert recover_folder(target, MARKER)
    assert tree(epath.Path(bucket)) == {f"data/{name}": text for name, text in NEW.items()}


NEW = {"a.jsonl": b"a", "z.jsonl": b"z", MARKER: b"new"}
OLD = {"a.jsonl": b"old a", "b.jsonl": b"old b", MARKER: b"old"}

# Writes a new folder over an old one and is killed at a call of the operating system.
KILLED = """
import os, signal, sys
from etils import epath
from coi_jax.common import files, storage
root, name, number = epath.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if name != "exchange":
    storage.exchange = lambda *_: False
owner = {"replace": os, "exchange": storage, "rmtree": storage.shutil}[name]
calls = 0
def counted(call):
    def one(*arguments, **options):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return one
with storage.atomic_folder(root / "data", marker="manifest.json", replace=lambda _: True) as folder:
    for key, text in {"a.jsonl": "a", "z.jsonl": "z", "manifest.json": "new"}.items():
        files.write_text(folder / key, text)
    setattr(owner, name, counted(getattr(owner, name)))
"""


@pytest.mark.parametrize(
    ("call", "number"), [("exchange", 1), ("replace", 1), ("replace", 2), ("rmtree", 1)], ids=lambda part: str(part)
)
def test_a_kill_while_a_folder_is_replaced_leaves_the_old_or_the_new_one(
    tmp_path: pathlib.Path, call: str, number: int
) -> None:
    for name, text in OLD.items():
        files.write_bytes(tmp_path / "data" / name, text)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), call, str(number)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    recover_folder(tmp_path / "data", MARKER)
    assert tree(epath.Path(tmp_path / "data")) in (OLD, NEW)


# Is killed in the midst of a new folder.
KILLED_WHILE_WRITING = """
import os, sys
from coi_jax.common import storage
with storage.atomic_folder(sys.argv[1], marker="manifest.json"):
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "data"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(target)], cwd=ROOT, check=False)
        (left,) = tmp_path.iterdir()
    other = tmp_path / ".data.notes"
    other.mkdir()
    with atomic_folder(target, marker=MARKER) as living:
        assert not left.exists()
        with atomic_folder(target, marker=MARKER) as second:
            assert {path.name for path in tmp_path.iterdir()} == {living.name, second.name, other.name}
        files.write_text(living / MARKER, "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"data", other.name}


def test_a_folder_that_was_whole_before_the_kill_gets_its_name(tmp_path: pathlib.Path) -> None:
    files.write_text(tmp_path / ".data.0123abcd" / MARKER, "whole")
    (tmp_path / ".data.0123abcd" / WHOLE).touch()
    (tmp_path / ".data.3210abcd").mkdir()
    already = pytest.raises(UserError, match="is there already")
    with already, atomic_folder(tmp_path / "data", marker=MARKER):
        pytest.fail("the block must not run")
    assert tree(epath.Path(tmp_path)) == {f"data/{MARKER}": b"whole"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_lacked_files_at_the_kill_is_written_again(tmp_path: pathlib.Path) -> None:
    """Its marker is there, as the config of a converted run, which is written before the checkpoint."""
    files.write_text(tmp_path / ".data.0123abcd" / MARKER, "begun")
    with atomic_folder(tmp_path / "data", marker=MARKER) as folder:
        files.write_text(folder / MARKER, "whole")
    assert tree(epath.Path(tmp_path)) == {f"data/{MARKER}": b"whole"}


@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_while_objects_are_replaced_leaves_the_old_or_the_new_ones(
    bucket: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    root, calls = epath.Path(bucket), iter(range(1, number))
    for name, text in OLD.items():
        files.write_bytes(root / "data" / name, text)

    def until_killed(call: Callable[..., None]) -> Callable[..., None]:
        def one(*arguments: object, **options: object) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt  # nothing is cleaned up after it, as after a kill
            call(*arguments, **options)

        return one

    def write() -> None:
        with atomic_folder(root / "data", marker=MARKER, replace=lambda _: True) as folder:
            for name, text in NEW.items():
                files.write_bytes(folder / name, text)
            for method in ("cp_file", "_rm"):
                monkeypatch.setattr(BucketFileSystem, method, until_killed(getattr(BucketFileSystem, method)))

    with contextlib.suppress(KeyboardInterrupt):
        write()
    monkeypatch.undo()
    recover_folder(root / "data", MARKER)
    assert tree(root / "data") in (OLD, NEW)


def test_where_names_cannot_be_exchanged_they_change_one_after_the_other(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "exchange", lambda *_: False)
    for number in range(2):
        with atomic_folder(tmp_path / "data", marker=MARKER, replace=lambda _: True) as folder:
            files.write_text(folder / MARKER, str(number))
    assert tree(epath.Path(tmp_path)) == {f"data/{MARKER}": b"1"}


def test_two_names_are_exchanged(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    assert exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").is_file()
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(str(tmp_path / "a"), str(tmp_path / "none"))


def test_lines_are_appended(root: epath.Path) -> None:
    path = root / "deep" / "rows.jsonl"
    for number in range(3):
        with AppendFile(path) as file:
            files.append_jsonl(file, {"number": number, "text": "é"})
            files.append_jsonl(file, {"number": number, "text": "\u2028"})
    assert [row["number"] for row in files.read_jsonl(path)] == [0, 0, 1, 1, 2, 2]
    files.recover_jsonl(path)
    assert len(list(files.read_jsonl(path))) == 6


def test_a_bucket_gets_lines_now_and_then_and_on_the_way_out(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = epath.Path(bucket) / "rows.jsonl"
    with pytest.raises(RuntimeError, match="stopped"), AppendFile(path) as file:  # noqa: PT012
        file.write("1\n")
        assert not path.exists()
        monkeypatch.setattr(storage, "UPLOAD_SECONDS", 0.0)
        file.write("2\n")
        assert path.read_bytes() == b"1\n2\n"
        monkeypatch.setattr(storage, "UPLOAD_SECONDS", 60.0)
        file.write("3\n")
        raise RuntimeError("stopped")
    assert path.read_bytes() == b"1\n2\n3\n"


def test_a_source_folder_names_what_is_missing(root: epath.Path) -> None:
    folder = Folder(str(root / "model"), "src")
    with pytest.raises(UserError, match=r"src: .*model: no such folder"):
        folder.names()
    files.write_text(folder.at("config.json"), "[]")
    assert folder.names() == ["config.json"]
    with pytest.raises(UserError, match="not a JSON object"):
        folder.read_json("config.json")
    with pytest.raises(UserError, match="the folder is not complete"):
        folder.read("model.safetensors")
    assert folder.identity("config.json") == files.sha256(folder.at("config.json"))


def test_a_process_that_is_started_has_the_same_buckets(bucket: str) -> None:
    script = f"from coi_jax.common import files; files.write_text({bucket + '/x'!r}, 'there')"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert files.read_text(f"{bucket}/x") == "there"


@pytest.mark.parametrize(("marker", "what"), [("manifest.json", "dataset"), ("config.json", "run")])
def test_the_folder_of_another_job_is_named(tmp_path: pathlib.Path, marker: str, what: str) -> None:
    check_not_kept(tmp_path, "--out")
    check_not_kept(tmp_path / "new", "--out")
    (tmp_path / marker).touch()
    with pytest.raises(UserError, match=f"--out: .* is the folder of a {what}"):
        check_not_kept(tmp_path, "--out")
    with pytest.raises(UserError, match=f"--out: .*{marker}: is a file; name a folder"):
        check_not_kept(tmp_path / marker, "--out")


def write_folder(path: str) -> None:
    with atomic_folder(path, marker=MARKER):
        pass


def lock_folder(path: str) -> None:
    with folder_lock(path, "out"):
        pass


@pytest.mark.parametrize("write", [write_folder, lock_folder, lambda path: storage.make_folder(path, "out")])
def test_a_folder_that_cannot_be_created_is_refused_in_one_line(
    write: Callable[[str], None], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").touch()
    for path, reason in (("/proc/none", ".+"), (f"{tmp_path}/file/none", "Not a directory")):
        with pytest.raises(UserError, match=f"^out: {path}: cannot be written \\({reason}\\); name another path$"):
            write(path)


@pytest.mark.parametrize("write", [lambda path: files.write_text(path, "x"), AppendFile])
@pytest.mark.parametrize("name", ["none.txt", "none/none.txt"])
def test_a_file_that_cannot_be_created_is_refused_in_one_line(write: Callable[[str], object], name: str) -> None:
    with pytest.raises(UserError, match=f"^out: /proc/{name}: cannot be written \\(.+\\); name another path$"):
        write(f"/proc/{name}")


@pytest.mark.parametrize("write", [lambda path: files.write_text(path, "x"), AppendFile])
def test_a_file_where_the_folder_should_be_is_no_folder(tmp_path: pathlib.Path, write: Callable[[str], object]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file/x: cannot be written \(Not a directory\); name another path$"):
        write(f"{tmp_path}/file/x")


def test_a_full_disk_is_not_taken_for_a_wrong_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="No space left"), storage.writable(tmp_path, "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_by_what_the_user_asked_for(tmp_path: pathlib.Path) -> None:
    def fill_folder() -> None:
        with storage.atomic_folder(tmp_path / "out", marker="x") as folder:
            pathlib.Path(folder / "x").symlink_to("/dev/full")
            with open(folder / "x", "wb") as file:
                file.write(b"x" * 2**20)

    def fill_file_in_folder() -> None:
        with storage.atomic_folder(tmp_path / "out", marker="x") as folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "x"))

    def fill_file() -> None:
        with storage.atomic_file(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")

    for fill in (fill_folder, fill_file_in_folder, fill_file):
        with pytest.raises(OSError, match="No space left") as caught:
            fill()
        assert caught.value.filename == str(tmp_path / "out")
        assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left") as caught:
        AppendFile("/dev/full").write("x")
    assert caught.value.filename == "/dev/full"


@pytest.mark.parametrize(
    "read",
    [
        files.read_bytes,
        files.sha256,
        lambda path: list(files.read_jsonl(path)),
        lambda path: storage.open_input(path).read(),
        lambda path: Folder(path.parent, "weights").read(path.name),
        lambda path: Folder(path.parent, "weights").read(path.name, 0, 8),
        lambda path: storage.file_identity(epath.Path(path)),
    ],
)
def test_a_file_whose_reading_fails_is_named(read: Callable[[pathlib.Path], object]) -> None:
    with pytest.raises(OSError, match="Input/output error") as caught:
        read(UNREADABLE)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(UNREADABLE))


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user of its own."""

    def refuse() -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", refuse)
    with pytest.raises(UserError, match=r"^XDG_CACHE_HOME: '': is set to no folder"):
        storage.user_cache()
