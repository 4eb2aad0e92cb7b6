import json
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from coi_jax.common.errors import UserError
from coi_jax.common.storage import upload_folder
from coi_jax.tokenizers.tokenizer_files import TokenizerFiles, read_tokenizer
from tests.helpers.tokenizer_folders import FAMILIES


def files(**settings: dict[str, Any]) -> TokenizerFiles:
    return TokenizerFiles("here", {f"{name}.json": json.dumps(value).encode() for name, value in settings.items()})


def test_a_folder_a_link_a_bucket_and_a_file_are_read_alike(tmp_path: Path, bucket: str) -> None:
    FAMILIES["llama"](tmp_path / "real")
    (tmp_path / "links").mkdir()
    upload_folder(tmp_path / "real", epath.Path(f"{bucket}/llama"))
    for path in (tmp_path / "real").iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)  # as in the hub's cache
    found = read_tokenizer(str(tmp_path / "real"))
    assert "tokenizer.json" in found.data
    assert "tokenizer.model" not in found.data
    for place in (tmp_path / "links", tmp_path / "real" / "tokenizer.json", f"{bucket}/llama"):
        assert read_tokenizer(str(place)).data == found.data
    by_model = read_tokenizer(str(tmp_path / "real" / "tokenizer.model"))
    assert by_model.data.keys() ^ found.data.keys() == {"tokenizer.json", "tokenizer.model"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    FAMILIES["t5_model"](tmp_path / "real")
    found = read_tokenizer(str(tmp_path / "real"))
    found.write(tmp_path / "new" / "copy")
    again = read_tokenizer(str(tmp_path / "new" / "copy"))
    assert (again.data, again.fingerprint) == (found.data, found.fingerprint)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no tokenizer\.json, tokenizer\.model, spiece\.model"):
        read_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match=r"config\.vocabulary\.folder: .*none: no such folder"):
        read_tokenizer(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"config\.vocabulary\.folder: odd://x: cannot be reached"):
        read_tokenizer("odd://x")


def test_the_tokenizers_config_has_the_last_word() -> None:
    named = files(
        tokenizer_config={"bos_token": None, "eos_token": {"content": "<end>", "lstrip": True}},
        special_tokens_map={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    )
    assert named.special_tokens() == {"eos_token": "<end>", "pad_token": "<pad>"}
    ends: dict[str, dict[str, Any]] = {
        "config": {"eos_token_id": 2, "pad_token_id": 0},
        "generation_config": {"eos_token_id": [3, 4]},
    }
    assert files(**ends).token_ids("eos_token_id") == [3, 4]
    assert files(**ends).token_ids("pad_token_id") == [0]
    assert files().token_ids("eos_token_id") == []
    for value in ("abc", -1, {"a": 3}, 10**12):
        with pytest.raises(UserError, match=r"config.json: eos_token_id: .* is neither the id of a token"):
            files(config={"eos_token_id": value}).token_ids("eos_token_id")


def test_added_tokens_come_from_the_newest_file_that_lists_them() -> None:
    model = {"model": {"vocab": {"a": 0, "</s>": 1}}, "added_tokens": [{"id": 2, "content": "<x>", "special": False}]}
    token = {"content": "<x>", "special": True, "rstrip": True}
    old = files(tokenizer=model, added_tokens={"<y>": 3}, special_tokens_map={"eos_token": "</s>"}).added_tokens()
    assert {id: (token.content, token.special) for id, token in old.items()} == {
        1: ("</s>", True),
        2: ("<x>", False),
        3: ("<y>", False),
    }
    new = files(tokenizer=model, added_tokens={"<y>": 3}, tokenizer_config={"added_tokens_decoder": {"2": token}})
    assert [(found.content, found.special, found.rstrip) for found in new.added_tokens().values()] == [
        ("<x>", True, True)
    ]


def test_of_several_templates_the_default_one_is_taken() -> None:
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "chat"}]
    assert files(tokenizer_config={"chat_template": several}).chat_template() == "chat"
    both = TokenizerFiles("here", {"tokenizer_config.json": b'{"chat_template": "old"}', "chat_template.jinja": b"new"})
    assert both.chat_template() == "new"
    with pytest.raises(UserError, match="has no chat template"):
        files(tokenizer_config={"chat_template": several[:1]}).chat_template()


@pytest.mark.parametrize("count", [True, "100", -1, 10**12])
def test_a_count_of_sentinels_that_is_none_is_named(tmp_path: Path, count: object) -> None:
    FAMILIES["t5_model"](tmp_path / "t5")
    path = tmp_path / "t5" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra_ids": count}))
    with pytest.raises(UserError, match=f"extra_ids is {count}, not from 0 to 10000; correct it"):
        read_tokenizer(str(tmp_path / "t5")).added_tokens()
