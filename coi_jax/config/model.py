"""The config of a network: one decoder and one T5 whose switches spell the differences between families.

The families and their published sizes are rows of `coi_jax.families.registry`.
"""

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from coi_jax.common.schema import Section, Share

Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots_attention", "dots", "projections", "attention", "full"]
Kernel = Literal["auto", "xla", "cudnn", "splash"]
BaseDtype = Literal["float32", "bfloat16", "int8"]


def _zero_as_none(*fields: str) -> Any:
    """Return a validator that reads 0 as None, as configs have spelled it before these fields were optional."""

    def read(value: Any) -> Any:
        return None if type(value) in (int, float) and value == 0 else value

    return pydantic.field_validator(*fields, mode="before")(read)


class RopeConfig(Section):
    """Rotary positions (Su et al. 2021, section 3.2.2), and how their angles are stretched for longer texts."""

    theta: PositiveFloat
    everywhere: bool  # False: not in global layers, which know no positions then (EXAONE 4, SmolLM3)
    local_theta: PositiveFloat | None  # of layers with a window, which are not stretched then; None: as all layers
    # linear: Chen et al. 2023; llama3: by wavelength; yarn: by wavelength, with sharper attention (Peng et al. 2023);
    # longrope: each pair of channels by its own factor (Ding et al. 2024); dynamic: by the length of the text, from
    # original_length on. Longer sequences are refused then: each new token would change the angles of all before it.
    scaling: Literal["none", "linear", "llama3", "yarn", "longrope", "dynamic"]
    factor: PositiveFloat  # how far they are stretched; 1 where scaling is "none"
    low_frequency: NonNegativeFloat  # llama3, yarn: turns in original_length below which angles are fully stretched
    high_frequency: NonNegativeFloat  # llama3, yarn: turns above which it is left as it is
    original_length: NonNegativeInt  # positions that the model was first trained on; not of none and linear
    rotated_share: Annotated[float, Field(gt=0, le=1)]  # of the channels of a head, the first ones; the others are kept
    short_factors: tuple[PositiveFloat, ...]  # longrope: what divides the angles of each pair of channels
    long_factors: tuple[PositiveFloat, ...]  # longrope: the same for sequences longer than original_length
    attention_factor: PositiveFloat | None  # yarn: what rotated queries and keys are multiplied by; None: the paper's
    # Queries at position p are multiplied by 1 + query_growth · ln(1 + ⌊p / original_length⌋) (Llama 4, Ministral 3).
    query_growth: NonNegativeFloat

    _read_zero_as_none = _zero_as_none("local_theta")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_older_runs(cls, values: Any) -> Any:
        """Fill in the fields that the configs of older runs do not have."""
        older = {
            "rotated_share": 1.0,
            "short_factors": (),
            "long_factors": (),
            "attention_factor": None,
            "query_growth": 0.0,
        }
        return older | values if isinstance(values, dict) else values

    @property
    def scales_by_wavelength(self) -> bool:
        """Return whether the scaling tells slow angles from fast ones."""
        return self.scaling in ("llama3", "yarn")

    @pydantic.model_validator(mode="after")
    def _scaling_by_wavelength_has_its_fields(self) -> "RopeConfig":
        is_whole = self.original_length and self.low_frequency < self.high_frequency
        if self.scales_by_wavelength and not is_whole:
            raise ValueError(f'scaling "{self.scaling}" needs original_length, and low_frequency below high_frequency')
        if self.scaling == "none" and self.factor != 1:
            raise ValueError('factor must be 1 where scaling is "none"')
        if self.scaling in ("longrope", "dynamic") and self.original_length < 2:
            raise ValueError(f'scaling "{self.scaling}" needs original_length')
        if self.attention_factor is not None and self.scaling != "yarn":
            raise ValueError('attention_factor is that of scaling "yarn"; give None')
        if self.query_growth and not self.original_length:
            raise ValueError("query_growth needs original_length, after which queries grow")
        return self

    @property
    def longest_sequence(self) -> int | None:
        """Return how many tokens a sequence may have; None: any number."""
        return self.original_length if self.scaling == "dynamic" else None

    def rotated_channels(self, head_dim: int) -> int:
        """Return how many channels of a head are rotated."""
        return int(head_dim * self.rotated_share)


# Settings of speed and memory, which change results by rounding alone.
SPEED_FIELDS = ("model.attention", "model.loss_chunk", "model.remat", "model.scan_unroll")


class DecoderConfig(Section):
    """A decoder: RMSNorm, rotary positions, grouped-query attention, a gated MLP, and the switches of its families."""

    kind: Literal["decoder"]
    vocabulary_size: PositiveInt | None  # rows of the embedding; None: as many as the vocabulary has ids
    layers: PositiveInt
    model_dim: PositiveInt
    heads: PositiveInt  # of the queries
    kv_heads: PositiveInt  # of keys and values; divides `heads`
    head_dim: PositiveInt
    mlp_dim: PositiveInt
    activation: Literal["silu", "gelu"]  # of the MLP's gate; gelu by its tanh formula
    norm_epsilon: PositiveFloat
    norm_offset: Literal[0, 1]  # what is added to a norm's scale (Gemma stores scale - 1)
    # What is normalized of attention and MLP: inputs (pre), outputs (post; EXAONE 4), or both (sandwich; Gemma).
    norm_placement: Literal["pre", "post", "sandwich"]
    qk_norm: bool | Literal["all_heads"]  # queries and keys are normalized: head by head (Qwen 3, Gemma 3), or together
    qkv_bias: bool  # queries, keys and values have a bias (Qwen 2.5)
    attention_scale_dim: PositiveInt  # attention scores are divided by its square root; head_dim in most
    attention_softcap: PositiveFloat | None  # scores are bent to stay below it (Gemma 2); None: they are not
    logits_softcap: PositiveFloat | None
    window: PositiveInt | None  # a query sees so many positions up to its own; None: all
    # Every n-th layer has no window, or where no layer has one, no rotary positions (SmolLM3); None: all are alike.
    global_layer_interval: PositiveInt | None
    first_global_layer: PositiveInt | None  # the first of them, from 1 (Ministral); None: the n-th
    rope: RopeConfig
    scaled_embedding: bool  # embeddings are multiplied by √model_dim (Gemma)
    tied_embedding: bool  # the embedding is the output layer too
    dropout: Share
    dtype: Dtype  # of the computation; trained parameters are float32
    attention: Kernel  # what computes it in packed rows; auto: splash on TPU, cudnn on GPU, where they can
    loss_chunk: PositiveInt | None  # positions of a device whose logits exist at once; None: all
    remat: Remat  # what the backward pass finds kept, from most to least (coi_jax.models.layers.REMAT_POLICIES)
    scan_unroll: PositiveInt | None  # layers unrolled in one scan step; None: all on a CPU, else 1

    @property
    def local_layers(self) -> int:
        """Layers that have a window."""
        if self.window is None:
            return 0
        return self.layers - len(self.global_layers)

    @property
    def global_layers(self) -> range:
        """Return the numbers, from 0, of the layers that `global_layer_interval` sets apart."""
        interval = self.global_layer_interval
        return range((self.first_global_layer or interval) - 1, self.layers, interval) if interval else range(0)

    _read_zero_as_none = _zero_as_none("attention_softcap", "logits_softcap", "window", "global_layer_interval")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_runs_without_first_global_layer(cls, values: Any) -> Any:
        """Fill in the field that the configs of older runs do not have."""
        return {"first_global_layer": None} | values if isinstance(values, dict) else values

    @pydantic.model_validator(mode="after")
    def _first_global_layer_is_of_an_interval(self) -> "DecoderConfig":
        if self.first_global_layer and self.first_global_layer > (self.global_layer_interval or 0):
            raise ValueError(
                f"first_global_layer = {self.first_global_layer} must be at most global_layer_interval = "
                f"{self.global_layer_interval}, as every one of so many layers is global"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> "DecoderConfig":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim} must be even: rotary positions turn pairs")
        rotated = self.rope.rotated_channels(self.head_dim)
        if rotated % 2 or not rotated:
            raise ValueError(
                f"rope.rotated_share = {self.rope.rotated_share} of head_dim = {self.head_dim} is no pairs"
            )
        counts = {len(self.rope.short_factors), len(self.rope.long_factors)}
        if counts != {rotated // 2 if self.rope.scaling == "longrope" else 0}:
            raise ValueError(f'rope.short_factors and long_factors must be {rotated // 2} each for scaling "longrope"')
        if self.global_layer_interval and not self.window and self.rope.everywhere:
            raise ValueError(
                f"global_layer_interval = {self.global_layer_interval} says which layers have no window, or no rotary "
                "positions; give the window, or rope.everywhere = False"
            )
        return self


class T5Config(Section):
    """A T5: an encoder-decoder with a relative position bias. Version 1.0 has a ReLU and a tied head, 1.1 neither."""

    kind: Literal["t5"]
    vocabulary_size: PositiveInt | None  # rows of the embedding; None: as many as the vocabulary has ids
    layers: PositiveInt  # of the encoder
    decoder_layers: PositiveInt
    model_dim: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt
    mlp_dim: PositiveInt
    mlp: Literal["relu", "gated_gelu"]
    relative_buckets: Annotated[int, Field(ge=4, multiple_of=2)]
    relative_max_distance: PositiveInt
    norm_epsilon: PositiveFloat
    tied_embedding: bool  # the embedding is the output layer too; logits are divided by √model_dim then
    dropout: Share
    dtype: Dtype
    attention: Kernel  # auto or xla: no kernel takes a bias that is trained
    loss_chunk: PositiveInt | None
    remat: Remat
    scan_unroll: PositiveInt | None

    @pydantic.field_validator("attention")
    @classmethod
    def _no_kernel_takes_its_bias(cls, attention: Kernel) -> Kernel:
        if attention not in ("auto", "xla"):
            raise ValueError('no kernel takes the relative position bias of a T5; give "auto" or "xla"')
        return attention

    @pydantic.model_validator(mode="after")
    def _distances_grow(self) -> "T5Config":
        exact = self.relative_buckets // 2
        if self.relative_max_distance <= exact:
            raise ValueError(
                f"relative_max_distance = {self.relative_max_distance} must be above relative_buckets / 2 = {exact}: "
                "the first half of the buckets holds one distance each"
            )
        return self


class LoraConfig(Section):
    """Low-rank adapters beside frozen linear maps (Hu et al. 2021)."""

    rank: PositiveInt
    alpha: PositiveFloat  # what an adapter adds is multiplied by alpha / rank
    targets: str  # a regular expression: the linear maps whose dotted name it matches, up to a dot or its end
    dropout: Share  # of the adapters' inputs
    rank_stabilized: bool  # multiply by alpha / √rank instead (Kalajdzievski 2023)
    base_dtype: BaseDtype  # how the frozen matrices are held; int8 with a scale for each output channel

    @property
    def scaling(self) -> float:
        """The factor that an adapter's product is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)

    @pydantic.field_validator("targets")
    @classmethod
    def _is_an_expression(cls, targets: str) -> str:
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return targets


ModelConfig = Annotated[DecoderConfig | T5Config, Field(discriminator="kind")]


def model_section(values: dict[str, Any]) -> type[DecoderConfig] | type[T5Config]:
    """Return the class that some values are meant for."""
    return T5Config if values.get("kind") == "t5" else DecoderConfig
