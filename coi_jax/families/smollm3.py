"""SmolLM3 (Hugging Face 2025): a Llama 3 of which every fourth layer has no rotary positions."""

from coi_jax.common.errors import UserError
from coi_jax.families import decoder_common, llama
from coi_jax.families.decoder_common import PLAIN_ROPE, sizes
from coi_jax.families.family import Family, Fields

SMOLLM3 = llama.LLAMA1 | dict(
    global_layer_interval=4,
    rope=PLAIN_ROPE | dict(theta=2_000_000.0, everywhere=False),
    tied_embedding=True,
    vocabulary_size=128_256,
)
ROPE_3B = PLAIN_ROPE | dict(theta=5_000_000.0, everywhere=False)

DEFAULTS = decoder_common.DEFAULTS | dict(
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=11_008,
    num_hidden_layers=36,
    num_attention_heads=16,
    num_key_value_heads=4,
    rope_theta=2_000_000.0,
    tie_word_embeddings=True,
    no_rope_layers=None,
    no_rope_layer_interval=4,
    use_sliding_window=False,
    sliding_window=None,
    layer_types=None,
)


def read(values: Fields) -> Fields:
    """Return the fields of the model section that a config.json decides.

    Raises:
      UserError: the layers without rotary positions are not every n-th, or layers have a window as well.
    """
    layers, turned = values["num_hidden_layers"], values["no_rope_layers"]  # which lists those that have them
    candidates = (values["no_rope_layer_interval"], *range(1, layers + 2))
    if not turned:
        turned = _turned_layers(candidates[0], layers)
    interval = next((every for every in candidates if list(turned) == _turned_layers(every, layers)), None)
    if interval is None:
        raise UserError("config.json: no_rope_layers", turned, "the network here has them in all but every n-th layer")
    section = decoder_common.read(values)
    if section["window"]:
        raise UserError("config.json: sliding_window", True, "the network here has no windows then")
    everywhere = interval > layers
    return section | {
        "global_layer_interval": None if everywhere else interval,
        "rope": section["rope"] | {"everywhere": everywhere},
    }


def _turned_layers(interval: int, layers: int) -> list[int]:
    """Return for each layer 1 where it has rotary positions, 0 where it is an `interval`-th one."""
    return [int(number % interval != 0) for number in range(1, layers + 1)]


def write(section: Fields) -> Fields:
    """Return the fields of a config.json."""
    interval = section["global_layer_interval"] or section["layers"] + 1
    return llama.write(section) | {
        "no_rope_layer_interval": interval,
        "no_rope_layers": _turned_layers(interval, section["layers"]),
        "layer_types": ["full_attention"] * section["layers"],
        "use_sliding_window": False,
        "sliding_window": None,
    }


FAMILY = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    switches=SMOLLM3,
    variants={"smollm3": SMOLLM3},
    models={"smollm3_3b": SMOLLM3 | sizes(36, 2048, 16, 4, 128, 11_008) | dict(rope=ROPE_3B)},
    defaults=DEFAULTS,
    fixed=llama.FIXED,
    read=read,
    write=write,
    tensors=(llama.TENSORS,),
)
