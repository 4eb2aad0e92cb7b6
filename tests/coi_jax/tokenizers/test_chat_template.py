from datetime import datetime
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from coi_jax.common.errors import UserError
from coi_jax.tokenizers import chat_template
from coi_jax.tokenizers.chat_template import ChatTemplate

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
