"""Runs a function on large texts in a process of its own, which has little time and memory for each."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from tests.helpers.paths import ROOT

SECONDS, MEMORY = 1.0, 2**29

SCRIPT = """
import json, resource, sys, time
{imports}
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
def seconds(text):
    start = time.process_time()
    try:
        run(text)
    except {refusal} as error:
        assert len(str(error)) < 500 and len(str(error).splitlines()) == 1, error
    return time.process_time() - start
for text in json.load(sys.stdin):
    # A machine that does other work besides may make one try slow.
    assert seconds(text) < {seconds} or seconds(text) < {seconds} or seconds(text) < {seconds}, text[:20]
"""


def assert_megabyte_takes_little(imports: str, refusal: str, texts: Sequence[str]) -> None:
    """Check that `run`, which `imports` defines, takes or refuses each text within a second and 512 MiB.

    Args:
      imports: Python code.
      refusal: the name of the exception that refuses a text.
      texts: of a megabyte each.
    """
    script = SCRIPT.format(imports=imports, refusal=refusal, memory=MEMORY, seconds=SECONDS)
    # Without the measurement of coverage, which would take most of the time.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    child = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(texts),
        text=True,
        capture_output=True,
        cwd=ROOT,
        check=False,
        env=environment,
    )
    assert not child.returncode, child.stderr[-1000:]
