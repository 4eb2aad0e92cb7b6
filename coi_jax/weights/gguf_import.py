"""Write a GGUF file as a published folder, which everything here and `transformers` open."""

import numpy as np

from coi_jax.common import files, hub
from coi_jax.common.storage import PathLike, atomic_folder
from coi_jax.families.published_config import from_hf_config
from coi_jax.weights.gguf_file import GgufFile
from coi_jax.weights.gguf_model import GgufModel
from coi_jax.weights.gguf_tokenizer import GgufTokenizer
from coi_jax.weights.safetensors_files import Tensor, TensorSpec, write_tensors
from coi_jax.weights.sources import CONFIG

EXTENSION = ".gguf"
FLOAT32 = np.dtype(np.float32)


def import_gguf(source: str, out: str, dtype: np.dtype | None, max_shard_bytes: int) -> None:
    """Write the model and the tokenizer of a GGUF file as a folder in the layout of Hugging Face.

    Args:
      source: the file, which may be in a bucket or in the Hub.
      out: a new folder; it appears when it is complete.
      dtype: the dtype of all tensors; float32 where None, which holds every quantization exactly.
      max_shard_bytes: the limit of a tensor file, unless one tensor alone is larger.

    Raises:
      UserError: the file is damaged, or holds a model or a tokenizer that is not known here.
    """
    kept = dtype or FLOAT32
    with GgufFile(_local_file(source), "src") as file:
        model = GgufModel(file)
        tokenizer = GgufTokenizer(file, model.config["vocab_size"])
        config = model.config | tokenizer.ids() | {"torch_dtype": kept.name}
        from_hf_config(config)  # or it could not be used here
        tokenizer_files = tokenizer.files(config["max_position_embeddings"])

        def read(key: str) -> Tensor:
            return model.read(key).astype(kept)

        with atomic_folder(out, marker=CONFIG) as folder:
            write_tensors(
                folder, [TensorSpec(key, model.shape(key), kept) for key in model.keys], read, max_shard_bytes
            )
            for name, data in tokenizer_files.items():
                files.write_bytes(folder / name, data)
            files.write_json(folder / CONFIG, config)


def _local_file(source: str) -> PathLike:
    """Return a file as it can be read: one of the Hub is downloaded."""
    if not hub.is_hub(source):
        return source
    parts = hub.parse(source, "src")
    return hub.download(str(parts._replace(path="")), "src", (parts.path,)) / parts.path
