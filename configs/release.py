"""The official release by the paper's recipe, with a model small enough for a CPU.

The recipe (released trainer): 3 epochs, 256 examples a step, linear decay after 3% of warm-up, no weight decay, the
Alpaca template. What differs: the model starts from random weights, so its learning rate is higher than the paper's
2e-5, and chains longer than a row of 1024 positions are left out and counted: none loses its final answer to a cut.

Command: `python -m coi_jax.train --config configs/release.py --workdir runs/release/coi12`
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
            length=1024,  # positions in a row
            targets_length=0,  # a T5's decoder row
            overlong="drop",  # examples longer than a row
        )
    )
    # SentencePiece, trained on the dataset; size is its number of pieces.
    config.vocabulary = ConfigDict(dict(kind="trained", file="", size=4000))
    config.model = model()
    # A published model's folder (safetensors, config.json), local or gs://…, or a run's; "": random weights.
    config.weights = ConfigDict(dict(folder=""))
    # Adapters on frozen weights; with rank 0 all weights are trained.
    config.lora = ConfigDict(
        dict(rank=0, alpha=16.0, targets="attention|mlp", dropout=0.0, rank_stabilized=False, base_dtype="float32")
    )
    config.optimizer = ConfigDict(
        dict(
            name="adamw",
            learning_rate=2e-3,  # from random weights; the paper tunes Alpaca-7B with 2e-5
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
            microbatches=4,
            log_every=5,
            checkpoint_every=20,
            keep_checkpoints=1,
        )
    )
    config.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1, sequence=1))
    config.evaluation = evaluation()
    return config


def model() -> ConfigDict:
    return ConfigDict(
        dict(
            preset="llama",  # the family; its fields can be replaced here too (coi_jax/families/registry.py)
            vocabulary_size=0,  # as many as the vocabulary has ids
            layers=2,
            model_dim=128,
            heads=2,
            kv_heads=2,
            head_dim=64,
            mlp_dim=352,
            attention_scale_dim=64,
            dropout=0.0,
            dtype="float32",  # a CPU has no fast bfloat16
            attention="auto",  # a kernel where the device has one: splash on TPU, cudnn on GPU, else xla
            loss_chunk=0,  # positions of a device whose logits exist at once; 0: all
            remat="none",  # what the backward pass computes again: nothing
            scan_unroll=2,  # all layers: a CPU gains nothing from a loop
        )
    )


def evaluation() -> ConfigDict:
    return ConfigDict(
        dict(
            tests=("coi2_test", "coi3_test"),
            decoding="greedy",
            temperature=1.0,
            top_p=1.0,
            beams=1,
            max_new_tokens=256,
            batch=100,
            bootstrap=1000,
        )
    )
