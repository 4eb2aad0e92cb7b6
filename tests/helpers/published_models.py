"""Published folders of tiny models, as transformers writes them, and what lies in such folders."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from coi_jax.config.model import DecoderConfig, T5Config, model_section
from coi_jax.families.published_config import from_hf_config
from tests.helpers.configs import RUN_FIELDS
from tests.helpers.reference_models import FAMILIES, reference

ROWS = 261  # of the embedding: more than the ids of bytes, and odd


def model(family: str, **changes: Any) -> PreTrainedModel:
    """A model of a family with random weights."""
    config = copy.deepcopy(FAMILIES[family])
    for name, value in {"vocab_size": ROWS, **changes}.items():
        setattr(config, name, value)
    return reference(config)


def save(folder: Path, family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Its folder: several files and an index."""
    theirs = model(family, **changes)
    torch.nn.Module.to(theirs, dtype)
    theirs.save_pretrained(folder, max_shard_size="30KB")
    return folder


def section(theirs: PreTrainedModel, **changes: Any) -> DecoderConfig | T5Config:
    """Our model section of a model of transformers."""
    fields = from_hf_config(theirs.config.to_dict()) | RUN_FIELDS | changes
    return model_section(fields).model_validate(fields)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, as the format's own library reads them."""
    return {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}


def logits(theirs: PreTrainedModel) -> torch.Tensor:
    """Of two short rows."""
    tokens = torch.from_numpy(np.random.default_rng(0).integers(2, theirs.config.vocab_size, (2, 12)))
    rest = {"decoder_input_ids": tokens.flip(1)} if theirs.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = theirs(input_ids=tokens, **rest).logits
    return found


def load(folder: Path) -> PreTrainedModel:
    """The model of a folder, as transformers reads it."""
    is_t5 = "t5" in json.loads((folder / "config.json").read_text())["model_type"]
    kind = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    found: PreTrainedModel = kind.from_pretrained(folder).eval()
    return found
