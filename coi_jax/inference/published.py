"""Published weights as they are, as a model that can be asked."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coi_jax.common import files
from coi_jax.common.storage import Folder, PathLike
from coi_jax.config.published_run import RECIPE, imported_config
from coi_jax.inference.model import Model, init_untrained_run, load_model


def load_published(
    folder: str,
    workdir: PathLike,
    *,
    config: PathLike = RECIPE,
    overrides: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Model:
    """Load the weights of a Hugging Face folder, without training or copying them.

    Args:
      folder: safetensors with `config.json` and a tokenizer; may be a URL.
      workdir: a new run folder, or one that was made of the same weights.
      config: the config file whose prompt template and limits apply; the model comes from `folder`.
      overrides: dotted fields of that config to change.
      evaluation: dotted fields that the model is evaluated with, and its run does not keep.

    Raises:
      UserError: the folder is not whole or of no known family, or `workdir` holds something else.
    """
    source = Folder(folder, "folder")
    values = imported_config(source, str(config), {**(overrides or {})}).model_dump(mode="json")
    values["weights"]["folder"] = source.url
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "config.json"
        files.write_json(path, values)
        init_untrained_run(workdir, str(path), {})
    return load_model(workdir, evaluation or {})
