"""The config of a run that begins from a published folder as it is; needs no JAX."""

from collections.abc import Mapping
from typing import Any

from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder
from coi_jax.config.loading import ROOT
from coi_jax.config.run import RunConfig, load_config, validate
from coi_jax.families.published_folder import CONFIG

# The config whose prompt template and limits apply where none is named, whatever folder the command runs in.
RECIPE = str(ROOT / "configs" / "release.py")


def imported_config(source: Folder, config_file: str, overrides: Mapping[str, Any]) -> RunConfig:
    """Return the config of a new run: a file's, with the model and the tokenizer of a published folder.

    Args:
      source: the published folder.
      config_file: the config file.
      overrides: dotted fields of it to change.

    Raises:
      UserError: an override contradicts the folder, or no network here computes what it holds.
    """
    source.names()  # or an error that names the folder as the user did
    source.read(CONFIG)
    named = {**overrides, "weights.folder": source.url}
    try:
        values = load_config(config_file, named, replaces_model=True).model_dump(mode="json")
    except UserError as error:  # about the folder, which the user named otherwise
        field = source.field if error.field == "config.weights.folder" else error.field
        raise UserError(field, error.value, error.hint) from None
    values["lora"], values["weights"]["folder"] = None, None
    values["arm"] = values["arm"] if "arm" in overrides else "base"  # it was tuned on no chains
    return validate(values)
