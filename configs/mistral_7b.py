"""Mistral-7B-Instruct tuned on chains by the paper's recipe, on a slice of TPUs.

The recipe (released trainer): 3 epochs, 256 examples a step, learning rate 2e-5, linear decay after 3% of warm-up, no
weight decay, bfloat16. What differs: its rows held one example of at most 512 positions, and longer chains lost their
final answer; here rows of 2048 positions hold several, packed, and what is longer than a row is left out and counted.

Command: `python -m coi_jax.train --config configs/mistral_7b.py --workdir gs://bucket/runs/coi12`
Does it fit, how fast, for how much: `python -m launch.preflight --config configs/mistral_7b.py --topology v5e:4x4`

Other models and ways, each by a few flags:
  Llama-2-7B: --config.model.preset=llama2_7b --config.weights.folder=… --config.vocabulary.kind=tokenizer
    --config.vocabulary.file=…
  FLAN-T5-XXL: the same with --config.model.preset=flan_t5_xxl, and --config.data.targets_length=1024
  LoRA: --config.lora.rank=16 --config.lora.base_dtype=bfloat16 --config.optimizer.learning_rate=2e-4
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.arm = "coi12"  # which chain lengths it is tuned on
    config.seed = 0

    config.data = ConfigDict(
        dict(
            folder="data/release",  # the dataset folder
            cache_folder="data/caches",  # token caches, shared by all runs
            split="train",
            template="alpaca",
            mixing="concatenate",  # each row once an epoch
            count="examples",  # a step takes exactly `examples` examples
            examples=256,  # examples a step
            rows=0,  # as many packed rows as the fullest step needs
            length=2048,  # positions in a row
            targets_length=0,  # a T5's decoder row
            overlong="drop",  # examples longer than a row
        )
    )
    config.vocabulary = ConfigDict(dict(kind="mistral", file="v1", size=0))
    config.model = ConfigDict(
        dict(
            preset="mistral_7b_v01",
            dropout=0.0,
            dtype="bfloat16",  # of the computation; trained weights and the optimizer's state are float32
            attention="auto",  # the platform's kernel
            loss_chunk=1024,  # positions of a device whose logits exist at once
            remat="dots",  # the backward pass computes all again but matrix products; `preflight` says what else fits
            scan_unroll=1,  # one layer is compiled, for all
        )
    )
    # Where training begins: a folder as published (config.json, *.safetensors), local or on gs://.
    config.weights = ConfigDict(dict(folder="checkpoints/Mistral-7B-Instruct-v0.1"))
    # Adapters on frozen weights; with rank 0 all weights are trained.
    config.lora = ConfigDict(
        dict(rank=0, alpha=16.0, targets="attention|mlp", dropout=0.0, rank_stabilized=False, base_dtype="float32")
    )
    config.optimizer = ConfigDict(
        dict(
            name="adamw",  # as the paper's; its state takes 8 bytes a parameter, adafactor's nearly none
            learning_rate=2e-5,
            schedule="linear",
            warmup_ratio=0.03,
            weight_decay=0.0,
            clip_norm=1.0,
            b1=0.9,
            b2=0.999,
            epsilon=1e-8,
        )
    )
    config.train = ConfigDict(
        dict(
            epochs=3.0,
            steps=0,
            microbatches=1,  # parts of a step's rows, one after another
            log_every=10,
            checkpoint_every=50,
            keep_checkpoints=1,
        )
    )
    config.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1, sequence=1))
    config.evaluation = ConfigDict(
        dict(
            tests=("coi2_test", "coi3_test"),
            decoding="greedy",
            temperature=1.0,
            top_p=1.0,
            beams=1,
            max_new_tokens=512,
            batch=128,
            bootstrap=1000,
        )
    )
    return config
