import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from coi_jax.common.errors import UserError
from coi_jax.tokenizers import chat_template
from coi_jax.tokenizers.chat_template import ChatTemplate
from tests.helpers.paths import ROOT

MESSAGES = [{"role": "user", "content": "Sort <b> & 'c'.\n\nd é"}, {"role": "assistant", "content": "b"}]
VARIABLES: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}

EACH, END = "{% for m in messages %}", "{% endfor %}"
TEMPLATES = {
    "blocks are trimmed": f"\n  {EACH}\n    {{{{ m.content }}}}\n  {END}\nend\n",
    "whitespace is kept where asked": "{%- for m in messages -%}\n {{- m['content'] | trim }} {% endfor %}",
    "loops may be left": EACH + "{{ m.role }}{% if loop.first %}{% break %}{% endif %}" + END,
    "loops may be gone on with": EACH + "{% if loop.first %}{% continue %}{% endif %}{{ m.role }}" + END,
    "JSON has no escapes": "{{ messages | tojson }} {{ [1] | tojson(indent=2) }} {{ 'é' | tojson(ensure_ascii=True) }}",
    "a model's text is marked": EACH + "{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}{{ x }}" + END,
    "variables": "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools, documents }}{{ x is defined }}",
    "a namespace": "{% set ns = namespace(n=0) %}" + EACH + "{% set ns.n = ns.n + 2 * 3 ** 2 %}" + END + "{{ ns.n }}",
    "a macro": "{% macro f(n=2) %}{% for i in range(n) %}{{ i * 2 }}{% endfor %}{% endmacro %}{{ f() }}{{ f(3) }}",
    "methods of text": "{{ messages[0].content.split('.')[0].strip().upper() }} {{ messages[0]['content'][:4] }}",
    "the date": "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("asks", [True, False])
def test_texts_are_those_of_transformers(name: str, asks: bool) -> None:
    made = ChatTemplate(TEMPLATES[name], VARIABLES, "here")
    rendered: Any = render_jinja_template(
        [MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=asks, **VARIABLES
    )
    (expected,), _ = rendered
    assert (
        made.render(MESSAGES, add_generation_prompt=asks)
        == made.render(MESSAGES, add_generation_prompt=asks)
        == expected
    )
    assert expected.strip()


def stops(source: str, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        ChatTemplate(source, VARIABLES, "models/x").render([MESSAGES[0] | fields], add_generation_prompt=True)
    assert str(caught.value).startswith("chat template: models/x: stops: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ raise_exception('Only user\nand assistant!') }}", "stops: Only user and assistant!; fix it"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ raise_exception.__globals__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "stops: "),
        ("{{ range(10 ** 6) | list }}", "Range too big"),
        ("{{ 'a' * 10 ** 6 * 10 }}", "larger than"),
        ("{{ 9 ** 9 ** 9 }}", "larger than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)
def test_what_a_template_may_not_do_is_one_clear_line(source: str, says: str) -> None:
    assert says in stops(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.05)
    assert "takes longer than 0.05 seconds" in stops(source)


def test_messages_are_never_run() -> None:
    content = "{{ raise_exception('run') }} {% for %} {# comment #}"
    made = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", {}, "here")
    assert made.render([{"role": "user", "content": content}], add_generation_prompt=True) == content


def test_the_clock_starts_anew_with_each_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.05)
    made = ChatTemplate("{% for a in range(1000) %}{% endfor %}{{ strftime_now('%Y') }}", {}, "here")
    assert {made.render([], add_generation_prompt=True) for _ in range(20)} == {str(datetime.now().year)}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ '%4000000000d' % 1 }}", "more than 512 MiB of memory"),
        ("{{ '%.*f' % (2000000000, 1.5) }}", "memory|ValueError|OverflowError"),
        ("{{ 'a'.ljust(4000000000) }}", "more than 512 MiB of memory"),
        ("{{ 'a'.zfill(4000000000) | length }}", "more than 512 MiB of memory"),
        ("{{ 'a' | center(4000000000) }}", "more than 512 MiB of memory"),
        ("{{ messages | slice(10 ** 6) | map('list') | list | length * 9 ** 9 }}", "longer than|memory|larger than"),
        ("{{ messages | batch(4000000000, 'x') | list | length }}", "longer than|memory"),
        ("{{ lipsum(n=1000000) }}", "longer than|memory"),
        ("{{ 'x' | indent(4000000000, true) }}", "more than 512 MiB of memory"),
        # Which limit it meets first depends on the machine.
        (
            "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "longer than|memory",
        ),
        ("{% for a in range(20000) %}" + "x" * 1000 + "{% endfor %}", "writes more than 16 MiB"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "stops: "),
        ("{{ " + "-" * 50_000 + "1 }}", "stops: "),
        ("{{ 'a'" + " ~ 'a'" * 50_000 + " }}", "stops: "),
    ],
    ids=lambda given: given[:30],
)
def test_a_template_that_takes_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch, source: str, says: str) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert re.search(says, stops(source))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB: nothing large was made here
    assert ChatTemplate("{{ 1 }}", {}, "here").render([], add_generation_prompt=True) == "1"


def test_one_process_renders_all_conversations() -> None:
    made = [ChatTemplate(source, VARIABLES, "here") for source in ("{{ messages[0].content }}", "{{ bos_token }}")]
    one = chat_template._WORKER._process
    for number in range(200):
        message = {"role": "user", "content": str(number) * 100}
        assert made[0].render([message], add_generation_prompt=True) == message["content"]
        assert made[1].render([message], add_generation_prompt=True) == "<s>"
    assert chat_template._WORKER._process is one


def test_threads_get_their_own_renderings() -> None:
    made = ChatTemplate("{{ messages[0].content }}", {}, "here")
    with ThreadPoolExecutor(8) as pool:
        texts = [str(number) * 1000 for number in range(200)]
        messages = [[{"role": "user", "content": text}] for text in texts]
        assert list(pool.map(lambda one: made.render(one, add_generation_prompt=True), messages)) == texts


FORKS = """
import os
from coi_jax.tokenizers import chat_template
made = chat_template.ChatTemplate("{{ messages[0].content }}", {}, "here")
child = os.fork()
name = "parent" if child else "child"
for number in range(50):
    text = f"{name} {number}"
    assert made.render([{"role": "user", "content": text}], add_generation_prompt=True) == text
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(chat_template._WORKER._process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_forked_process_renders_by_itself_and_the_renderer_ends_with_the_process_that_uses_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    renderer = int(done.stdout)
    end = time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{renderer}/stat").exists():
        if Path(f"/proc/{renderer}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{renderer}").exists()


def test_a_megabyte_of_messages_is_rendered_soon() -> None:
    made = ChatTemplate("{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}", {}, "here")
    messages = [{"role": "user", "content": "word " * 200}] * 1000
    start = time.monotonic()
    text = made.render(messages, add_generation_prompt=True)
    assert len(text) > 900_000
    assert time.monotonic() - start < 5
