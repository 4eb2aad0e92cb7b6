"""Shared fixtures. Eight CPU devices stand in for a pod; jaxtyping's shapes are checked in every test."""

import os
import signal
import uuid
from collections.abc import Iterator

from tests.helpers import cpu_devices

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # programs run a few times only; of child processes too
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {cpu_devices.flags(8)}"

from jaxtyping import install_import_hook

install_import_hook("coi_jax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests.helpers import browsers, memory  # noqa: E402
from tests.helpers.bucket import emulated_buckets  # noqa: E402
from tests.helpers.paths import SHARED  # noqa: E402
from tests.helpers.soak_options import pytest_addoption  # noqa: E402, F401

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # made now, before a test changes XLA_FLAGS for its children
hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("suite")
# Tests send these to commands; a suite that a shell runs in the background, or under nohup, has them ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests on the real data run wherever it lies beside the project, those of GPUs on each that JAX is told to use,
    those of pages where Chromium is installed; elsewhere they have no parameter to run on.
    """
    for fixture, folder in {"release_folder": "coi_release", "super_ni_folder": "super_ni"}.items():
        if fixture in metafunc.fixturenames:
            present = [SHARED / folder] if (SHARED / folder).is_dir() else []
            metafunc.parametrize(fixture, present, ids=[folder] * len(present))
    if "browser" in metafunc.fixturenames:
        metafunc.parametrize("browser", browsers.FOUND, ids=["chromium"] * len(browsers.FOUND))
    if "gpu" in metafunc.fixturenames:
        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        metafunc.parametrize("gpu", gpus, ids=str)


@pytest.fixture
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty bucket, emulated, for this process and those that it starts.

    No two have the same name: what a machine keeps by URL, as the locks of buckets, all workers of a suite share.
    """
    root = tmp_path_factory.mktemp("buckets")
    with emulated_buckets(root):
        yield f"gs://bucket-{uuid.uuid4().hex}"


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drop the compiled programs of a module after its last test, where they have become many."""
    if nextitem is None or nextitem.path != item.path:
        memory.drop_programs()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of pages `browser`, and those whose fixtures take so long that one worker makes them `slow`."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        if item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.slow)
