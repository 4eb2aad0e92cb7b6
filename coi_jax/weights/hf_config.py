"""Write the config.json of a network; `coi_jax.families.published_config` reads it."""

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.family import Fields
from coi_jax.families.published_config import from_hf_config
from coi_jax.families.registry import FAMILIES


def to_hf_config(config: DecoderConfig | T5Config, vocabulary_size: int, model_type: str = "") -> Fields:
    """Return the fields of a config.json that say what a network is: `from_hf_config` reads it back.

    Args:
      config: the model section.
      vocabulary_size: rows of the embedding.
      model_type: the preferred family; another is taken if this one does not compute what the network does.

    Raises:
      UserError: no published family computes what the network does; it names a field that none has.
    """
    section = config.model_dump() | {"vocabulary_size": vocabulary_size}
    candidates = [family for family in FAMILIES.values() if family.switches["kind"] == config.kind]
    differences = {}
    for family in sorted(candidates, key=lambda family: family.model_type != model_type):
        values = {"model_type": family.model_type, "architectures": [family.architecture]} | family.write(section)
        found = from_hf_config(values)
        unlike = [name for name in found if found[name] != section[name]]
        if not unlike:
            return values
        differences[family.model_type] = unlike
    closest = min(differences, key=lambda name: len(differences[name]))
    field = differences[closest][0]
    hint = f"no published family has this together with the other fields; {closest} is the nearest"
    raise UserError(f"config.model.{field}", section[field], hint)
