from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig, load_config
from tests.helpers import paths
from tests.helpers.paths import QUICKSTART

CONFIGS = sorted(paths.CONFIGS.glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_resolves_and_survives_json(path: Path) -> None:
    config = load_config(path, {})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert hash(config) == hash(load_config(path, {}))


def test_overrides_by_dotted_name() -> None:
    config = load_config(QUICKSTART, {"seed": 7, "model.layers": 2, "evaluation.tests": ("proc1_test",)})
    assert (config.seed, config.model.layers, config.evaluation.tests) == (7, 2, ("proc1_test",))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.learning_rat": 1e-3}, "did you mean 'optimizer.learning_rate'"),
        ({"optimiser.learning_rate": 1e-3}, "did you mean 'optimizer'"),
        ({"seed.of.all": 1}, "seed"),
        ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate: -1.0: .*greater than 0"),
        ({"optimizer.name": "sgd"}, "'adamw' or 'adafactor'"),
        ({"train.steps": "many"}, "train.steps"),
        ({"train.steps": 5, "train.epochs": 1}, "either epochs or steps"),
        ({"model.heads": 3, "model.kv_heads": 2}, "multiple of kv_heads"),
        ({"data.targets_length": 64}, "targets_length"),
        ({"model.kind": "rnn"}, "model"),
        ({"vocabulary.kind": "tokenizer", "vocabulary.size": 0}, "file is what kind"),
        ({"data.template": "chat"}, 'template = "chat" is what vocabulary.kind = "tokenizer" lays out'),
        ({"data.template": "mistral"}, 'is what vocabulary.kind = "mistral" lays out'),
    ],
)
def test_a_wrong_field_is_named_with_its_mend(overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(QUICKSTART, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "def get_config(): return {}[1]", "import nothing_like_it", "def get_config(:"])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.py") as caught:
        load_config(path, {})
    assert "\n" not in str(caught.value)


def test_a_missing_and_an_extra_field(tmp_path: Path) -> None:
    path = tmp_path / "fields.py"
    path.write_text(QUICKSTART.read_text().replace("config.seed", "config.sed"))
    with pytest.raises(UserError, match="seed: missing"):
        load_config(path, {})
    path.write_text(QUICKSTART.read_text().replace("clip_norm=", "clip_norms=1.0, clip_norm="))
    with pytest.raises(UserError, match="did you mean 'clip_norm'"):
        load_config(path, {})
    with pytest.raises(UserError, match="no such file"):
        load_config(tmp_path / "none.py", {})
