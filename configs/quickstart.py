"""The quickstart: a decoder of 1M parameters learns procedural chains on a CPU.

Command: `make quickstart`, or for one arm
`python -m coi_jax.train --config configs/quickstart.py --workdir runs/quickstart/coi12 --config.arm=coi12`
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.arm = "coi123"  # which chain lengths it is tuned on
    config.seed = 0

    config.data = ConfigDict(
        dict(
            folder="data/quickstart",  # the dataset folder
            cache_folder="data/caches",  # token caches, shared by all runs
            split="train",
            template="plain",  # instruction and input, a line each
            mixing="concatenate",  # each row once an epoch
            count="tokens",  # a step is `rows` full rows
            examples=0,  # examples a step, where count = "examples"
            rows=16,  # packed rows a step: a small model learns more from many small steps than from few large ones
            length=128,  # positions in a row: a chain of 3 steps fits; attention costs its square
            targets_length=0,  # a T5's decoder row
            overlong="drop",  # examples longer than a row
        )
    )
    # SentencePiece, trained on the dataset; size is its number of pieces.
    config.vocabulary = ConfigDict(dict(kind="trained", file="", size=900))
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
            learning_rate=3e-3,
            schedule="linear",
            warmup_ratio=0.05,
            weight_decay=0.01,
            clip_norm=1.0,
            b1=0.9,
            b2=0.98,
            epsilon=1e-8,
        )
    )
    config.train = ConfigDict(
        dict(
            epochs=0.0,
            steps=1000,
            microbatches=1,
            log_every=50,
            checkpoint_every=500,
            keep_checkpoints=1,
        )
    )
    config.mesh = ConfigDict(dict(replica=1, fsdp=-1, tensor=1, sequence=1))
    config.evaluation = evaluation()
    return config


def model() -> ConfigDict:
    return ConfigDict(
        dict(
            preset="exaone4",  # the family; its fields can be replaced here too (coi_jax/families/registry.py)
            vocabulary_size=0,  # as many as the vocabulary has ids
            layers=4,
            model_dim=128,
            heads=4,
            kv_heads=4,
            head_dim=32,
            mlp_dim=352,
            attention_scale_dim=32,
            window=16,  # positions that a local layer sees; it alone knows their order
            global_layer_interval=2,  # every second layer sees all, at any distance: longer prompts look alike to it
            dropout=0.0,
            dtype="float32",  # a CPU has no fast bfloat16
            attention="auto",  # a kernel where the device has one: splash on TPU, cudnn on GPU, else xla
            loss_chunk=0,  # positions of a device whose logits exist at once; 0: all
            remat="none",  # what the backward pass computes again: nothing
            scan_unroll=4,  # all layers: a CPU gains nothing from a loop
        )
    )


def evaluation() -> ConfigDict:
    return ConfigDict(
        dict(
            tests=("proc1_test", "proc2_test", "proc3_test", "proc4_test", "proc5_test", "proc6_test"),
            decoding="greedy",
            temperature=1.0,
            top_p=1.0,
            beams=1,
            max_new_tokens=192,
            batch=100,
            bootstrap=1000,
        )
    )
