import pytest

from coi_jax.common.errors import UserError
from tests.helpers.llm_clients import config


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "127.0.0.1:1",
        "ftp://host/v1",
        "http://",
        "http://[::1",
        "http://h:99999/v1",
        "v1",
        "http://localhost:8000/v1\n",
    ],
)
def test_an_address_that_is_none_is_named_before_anything_is_asked(url: str) -> None:
    with pytest.raises(UserError, match=r"endpoint\.base_url: .*write it as http://HOST:PORT/v1"):
        config(url).resolved({})
    with pytest.raises(UserError, match=r"endpoint\.base_url"):
        config(url).model_copy(update={"base_url": None}).resolved({"OPENAI_BASE_URL": url})


def test_a_model_that_no_request_can_name_is_refused() -> None:
    asked = config("http://localhost:8000/v1").model_copy(update={"model": None})
    with pytest.raises(UserError, match=r"endpoint\.model: .*half of a surrogate pair"):
        asked.resolved({"COI_LLM_MODEL": "\udcff"})
    with pytest.raises(UserError, match=r"endpoint\.base_url: .*is no address"):
        asked.model_copy(update={"base_url": None}).resolved({"COI_LLM_MODEL": "m", "OPENAI_BASE_URL": "http://\udcff"})


def test_more_fields_of_a_request_are_texts_that_can_be_sent() -> None:
    with pytest.raises(ValueError, match=r"extra_body\s.*half of a surrogate pair"):
        config("u", extra_body={"stop": ["x", {"y": "\ud800"}]})


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://api.example.com", "http://[::1]:8/v1", None])
def test_an_address_is_taken_as_it_is(url: str | None) -> None:
    assert config("").model_copy(update={"base_url": url}).resolved({"OPENAI_BASE_URL": ""}).base_url == url


def test_a_key_may_end_a_line_and_one_that_is_none_is_not_shown() -> None:
    assert config("u").key({"OPENAI_API_KEY": "sk-1\n"}) == "sk-1"
    for bad in ("sk-\u00e9", "sk-1\nsk-2"):
        with pytest.raises(UserError, match="holds characters that no key has") as stopped:
            config("u").key({"OPENAI_API_KEY": bad})
        assert "sk-" not in str(stopped.value)


@pytest.mark.parametrize("field", ["prompt_price", "timeout_seconds", "patience_seconds", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_that_count_money_and_time_are_finite(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        config("u", **{field: value})
