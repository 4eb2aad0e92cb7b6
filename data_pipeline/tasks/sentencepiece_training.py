"""Trains a SentencePiece vocabulary on a dataset, and keeps it in the cache folder.

It is trained on the prompts and targets of all rows of the training split, whatever their length, so that all arms
share it. Text comes back exactly: nothing is normalised, runs of spaces and newlines stay, and what has no piece is
spelt in bytes. Digits are split, so that a model sees a number's own digits. The pad id is 0 and the end id is 1, as
in T5.
"""

import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sentencepiece
from etils import epath

from coi_jax.chains.dataset import read_chains
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import prompts
from coi_jax.tokenizers.vocabulary import trained_path, trained_size

# Another value of any of these trains another vocabulary: raise `TRAINER_VERSION` then.
OPTIONS: dict[str, Any] = {
    "model_type": "bpe",
    # A space belongs to the word before it: with "▁word" a word at the start of a line would be another piece than the
    # same word elsewhere, and a small model would have to learn to copy both.
    "treat_whitespace_as_suffix": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "byte_fallback": True,
    "user_defined_symbols": ["\n"],
    "pad_id": 0,
    "eos_id": 1,
    "unk_id": 2,
    "bos_id": -1,
    "max_sentence_length": 1 << 24,  # the default skips long lines without a word
    "num_threads": 1,  # the sums of several threads would come in any order
    "minloglevel": 2,
}


def ensure_trained(config: RunConfig) -> epath.Path:
    """Return the model file of a config's trained vocabulary; train it where the cache folder has none.

    Raises:
      UserError: the dataset is missing, or its text does not hold that many pieces.
    """
    path = trained_path(config)
    if not path.exists():
        print(f"training a vocabulary of {trained_size(config)} pieces, once for all arms", file=sys.stderr, flush=True)
        files.write_bytes(path, train(_lines(config), trained_size(config)))
    return path


def _lines(config: RunConfig) -> Iterator[str]:
    """Yield the lines of all prompts and targets; the newline itself is a piece of its own."""
    for chain in read_chains(config.data.folder, config.data.split):
        for text in (prompts.prompt(chain.instruction, chain.input, config.data.template), chain.targets):
            yield from filter(None, text.split("\n"))


def train(lines: Iterable[str], size: int, options: Mapping[str, Any] = OPTIONS) -> bytes:
    """Return a SentencePiece model of `size` pieces, the same bytes for the same lines.

    Args:
      lines: of text, without their newlines.
      size: number of pieces.
      options: of SentencePiece's trainer.

    Raises:
      UserError: the lines hold fewer pieces, or have more different characters than that; it names a size that fits.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=size, **options
        )
    except RuntimeError as error:
        raise UserError("config.vocabulary.size", size, _hint(str(error))) from None
    return model.getvalue()


def _hint(message: str) -> str:
    """SentencePiece's complaint about a size, as advice."""
    if largest := re.search(r"value <= (\d+)", message):
        return f"the dataset has text for at most {largest[1]} pieces; choose at most that"
    if needed := re.search(r"\d+ vs (\d+)", message):
        return f"too few for the dataset's characters; choose at least {needed[1]}"
    return "the dataset has no text to train on"
