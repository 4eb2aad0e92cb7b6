"""Write a GGUF file as a published folder, which everything here and `transformers` open."""

import numpy as np

from coi_jax.common import files, hub
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.storage import PathLike, as_path, atomic_folder
from coi_jax.families.published_config import from_hf_config
from coi_jax.weights.gguf_model import GgufModel
from coi_jax.weights.gguf_parts import GgufParts, part_names
from coi_jax.weights.gguf_tokenizer import GgufTokenizer
from coi_jax.weights.safetensors_files import TensorSpec, write_tensors
from coi_jax.weights.sources import CONFIG

EXTENSION = ".gguf"
FLOAT32 = np.dtype(np.float32)


def import_gguf(source: str, out: str, dtype: np.dtype | None, max_shard_bytes: int) -> None:
    """Write the model and the tokenizer of a GGUF file as a folder in the layout of Hugging Face.

    Args:
      source: the file, which may be in a bucket or in the Hub; of a model in several parts, any of them.
      out: a new folder; it appears when it is complete.
      dtype: the dtype of all tensors; float32 where None, which holds every quantization exactly.
      max_shard_bytes: the limit of a tensor file, unless one tensor alone is larger.

    Raises:
      UserError: a file is damaged or missing, or holds a model or a tokenizer that is not known here.
    """
    kept = dtype or FLOAT32
    with GgufParts(_readable_files(source), "src") as file:
        model = GgufModel(file)
        tokenizer = GgufTokenizer(file, model.config["vocab_size"])
        config = model.config | tokenizer.ids() | {"torch_dtype": kept.name}
        from_hf_config(config)  # or it could not be used here
        tokenizer_files = tokenizer.files(config["max_position_embeddings"])

        with atomic_folder(out, marker=CONFIG) as folder:
            write_tensors(
                folder, [TensorSpec(key, model.shape(key), kept) for key in model.keys], model.read, max_shard_bytes
            )
            for name, data in tokenizer_files.items():
                files.write_bytes(folder / name, data)
            files.write_json(folder / CONFIG, config)


def _readable_files(source: str) -> list[PathLike]:
    """Return a model's files as they can be read: those of the Hub are downloaded.

    Raises:
      UserError: some parts are there, and others are missing.
    """
    if hub.is_hub(source):
        url = hub.parse(source, "src")
        folder = hub.download(str(url._replace(path="")), "src", part_names(url.path))
        paths = [as_path(folder / name, "src") for name in part_names(url.path)]
    else:
        paths = [as_path(name, "src") for name in part_names(source)]
    missing = [path.name for path in paths if not path.exists()] if len(paths) > 1 else []
    if missing and len(missing) < len(paths):
        names = shorten(", ".join(missing), 200)
        hint = f"is one of {len(paths)} parts, and {len(missing)} are missing beside it: {names}; fetch them too"
        raise UserError("src", source, hint)
    return [*paths]
