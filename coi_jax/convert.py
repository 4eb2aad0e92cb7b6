"""Turns a published model's folder into a run, and a run into a folder that `transformers` loads.

  python -m coi_jax.convert --src models/mistral-7b --out runs/base --config configs/release.py
  python -m coi_jax.convert --src runs/coi12 --out models/coi12 --dtype bfloat16
  python -m coi_jax.convert --src runs/lora --out models/lora --adapters
  python -m coi_jax.convert --src SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2

What --src is decides which. A new run has the model, the weights and the tokenizer of the folder, and all else from
--config (--config.FIELD=VALUE as ever): it can be evaluated, and training can begin from it (config.weights.folder).
A run's adapters are folded into their base, unless --adapters asks for them alone. A GGUF file becomes a published
folder, its tensors in float32 unless --dtype says otherwise. All may be in a bucket (gs://…). One tensor is in memory
at a time.
"""

import os
import shlex
import sys
from collections.abc import Sequence

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder, is_local

DTYPES = ("float32", "bfloat16", "float16")
GIGABYTE = 10**9


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    import jax.numpy as jnp

    from coi_jax.parallel.processes import start_jax
    from coi_jax.runs.run_folder import RunFolder
    from coi_jax.weights.conversion import export_adapters, export_model, import_model
    from coi_jax.weights.gguf_import import EXTENSION, import_gguf
    from coi_jax.weights.sources import is_run

    start_jax()
    dtype = jnp.dtype(arguments.dtype) if arguments.dtype else None
    max_shard_bytes = int(arguments.shard_gb * GIGABYTE)
    if arguments.src.lower().endswith(EXTENSION):
        if arguments.adapters or overrides:
            hint = "becomes a published folder, which has neither adapters nor a config; leave those flags out"
            raise UserError("src", arguments.src, hint)
        import_gguf(arguments.src, arguments.out, dtype, max_shard_bytes)
        print(
            f"wrote {arguments.out}; next: --config.weights.folder={shlex.quote(arguments.out)}, or convert it to a run"
        )
    elif is_local(arguments.src) and os.path.isfile(arguments.src):
        hint = f"is a file; name a published folder, a run folder, or a GGUF file (*{EXTENSION})"
        raise UserError("src", arguments.src, hint)
    elif arguments.adapters:
        if not is_run(arguments.src):
            hint = "is no run folder, and --adapters writes those of a run; name one, or leave the flag out"
            raise UserError("src", arguments.src, hint)
        export_adapters(RunFolder(arguments.src), arguments.out)
        print(f"wrote {arguments.out}; next: peft.PeftModel.from_pretrained(model, {arguments.out!r})")
    elif is_run(arguments.src):
        run = RunFolder(arguments.src)
        export_model(run, arguments.out, dtype, max_shard_bytes)
        loader = "AutoModelForSeq2SeqLM" if run.load_config().model.kind == "t5" else "AutoModelForCausalLM"
        print(f"wrote {arguments.out}; next: transformers.{loader}.from_pretrained({arguments.out!r})")
    else:
        import_model(Folder(arguments.src, "src"), arguments.out, arguments.config, overrides, dtype)
        print(f"wrote {arguments.out}; next: python -m coi_jax.evaluate --workdir {shlex.quote(arguments.out)}")
    return 0


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--src", required=True, help="published folder (safetensors), run folder, or GGUF file")
    parser.add_argument("--out", required=True, help="new folder; it appears when it is whole")
    parser.add_argument("--dtype", choices=DTYPES, default="", help="of what is written; else as it is in --src")
    parser.add_argument("--config", default="configs/release.py", help="a new run's config, but for its model")
    parser.add_argument("--shard_gb", type=cli.positive_float, default=5.0, help="gigabytes of a tensor file, at most")
    parser.add_argument("--adapters", action="store_true", help="write a run's adapters alone, as peft reads them")
    return parser


def command() -> int:
    """Run the command `coi-convert`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
