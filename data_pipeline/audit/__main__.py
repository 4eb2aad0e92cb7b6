"""Reports what is wrong with a dataset folder, and how long its chains are.

Leaks between splits, duplicates, repeated ids, degenerate outputs, lengths in words and in tokens, the share of
chains that a row length would cut, and where categories and verbs stand. Writes nothing.

  python -m data_pipeline.audit --data data/coi --vocabulary mistral --length 512 1024
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.data.prompts import CHATS
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import ByteVocabulary, read_sentencepiece
from data_pipeline.audit.measures import audit
from data_pipeline.audit.text_report import text_report

MISTRAL_VERSION = "v1"


def _vocabulary(kind: str, file: str, template: str) -> Vocabulary:
    if kind == "bytes" and file:
        raise UserError("vocabulary_file", file, "bytes need no file; leave it out, or choose another --vocabulary")
    if kind in ("sentencepiece", "tokenizer") and not file:
        raise UserError("vocabulary_file", file, f"has no value, and --vocabulary {kind} needs one; name it")
    if kind == "mistral":
        from coi_jax.tokenizers.mistral import MistralVocabulary  # a second to import

        return MistralVocabulary(file or MISTRAL_VERSION)
    if kind == "tokenizer":
        from coi_jax.tokenizers.published import open_tokenizer  # half a second to import

        return open_tokenizer(file, template)
    return read_sentencepiece(file) if kind == "sentencepiece" else ByteVocabulary()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", required=True, help="dataset folder")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--vocabulary",
        choices=("bytes", "mistral", "sentencepiece", "tokenizer"),
        default="mistral",
        help="counts tokens",
    )
    parser.add_argument(
        "--vocabulary_file",
        default="",
        metavar="FILE",
        help=f"the vocabulary's file, folder or version, else {MISTRAL_VERSION}",
    )
    parser.add_argument("--template", choices=("alpaca", "plain", *CHATS), default="alpaca", help="lays out the prompt")
    parser.add_argument(
        "--length", type=cli.positive_int, nargs="+", default=[512, 1024, 2048], help="row lengths, in tokens"
    )
    arguments = parser.parse_args(argv)
    vocabulary = _vocabulary(arguments.vocabulary, arguments.vocabulary_file, arguments.template)
    findings = audit(arguments.data, vocabulary, arguments.template, arguments.length)
    print(json.dumps(findings, indent=2, ensure_ascii=False) if arguments.json else text_report(findings))
    return 0


def command() -> int:
    """Run the command `coi-audit`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
