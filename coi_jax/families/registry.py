"""The table of all model families, and of the presets that they define.

A config's model section may name a preset: a published model, `dict(preset="mistral_7b_v01", dropout=0.0, …)`, or a
family alone, for which the config gives the sizes. The fields beside it are those of the run, or replace the preset's.
Sources of all values: the `config.json` files published with the checkpoints.
"""

import copy

from coi_jax.common.errors import UserError, nearest
from coi_jax.families import (
    exaone4,
    gemma2,
    gemma3,
    llama,
    ministral,
    ministral3,
    mistral,
    mt5,
    olmo2,
    olmo3,
    phi3,
    qwen3,
    qwen25,
    smollm3,
    t5,
)
from coi_jax.families.family import Family, Fields

# By `model_type` of config.json. A network that several families can describe is published as the first of them.
FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        ministral.FAMILY,
        ministral3.FAMILY,
        qwen25.FAMILY,
        qwen3.FAMILY,
        gemma2.FAMILY,
        gemma3.FAMILY,
        exaone4.FAMILY,
        smollm3.FAMILY,
        olmo2.FAMILY,
        olmo3.FAMILY,
        phi3.FAMILY,
        t5.FAMILY,
        mt5.FAMILY,
    )
}

# Presets without sizes come first.
PRESETS: dict[str, Fields] = {
    **{name: section for family in FAMILIES.values() for name, section in family.variants.items()},
    **{name: section for family in FAMILIES.values() for name, section in family.models.items()},
}


def expand(preset: str, section: Fields) -> Fields:
    """Return the fields of a preset, with those of a model section in place of its own, `rope` field by field.

    Raises:
      UserError: there is no such preset.
    """
    if preset not in PRESETS:
        raise UserError("config.model.preset", preset, nearest(str(preset), list(PRESETS)))
    own = copy.deepcopy(PRESETS[preset])  # callers change what they get
    given = {field: value for field, value in section.items() if field != "preset"}
    return own | {
        field: own.get(field, {}) | value if isinstance(value, dict) else value for field, value in given.items()
    }
