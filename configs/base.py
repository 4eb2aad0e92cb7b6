"""Every field of a run's config, with its unit, and the recipes that config files begin from.

A config file calls one recipe, assigns what differs, and returns it:

    from configs import base

    def get_config():
        config = base.fine_tuning(weights="checkpoints/SmolLM2-135M-Instruct")
        config.optimizer.learning_rate = 1e-5
        return config

`python -m coi_jax.config --config FILE` prints the result. The fields' types and bounds are in `coi_jax/config/run.py`
and `coi_jax/config/model.py`.
"""

from typing import Any

from ml_collections import ConfigDict


def fine_tuning(weights: str | None) -> ConfigDict:
    """Tune a published model by the paper's recipe (its released trainer).

    3 epochs, 256 examples per step, learning rate 2e-5, linear decay after 3% of warm-up, no weight decay, bfloat16.
    The folder of the weights says the network, the vocabulary and the template, unless the config file sets them.

    Args:
      weights: a published folder, or a run's; None: named by `--config.weights.folder`.
    """
    config = _run()
    config.data = data(template="alpaca", batch=examples(256), length=2048)
    config.model = model(preset=None, dtype="bfloat16", loss_chunk=1024, remat="dots")
    del config.data.template, config.model.preset, config.vocabulary
    config.weights.folder = weights
    config.train = train(epochs(3), checkpoint_every=50)
    return config


def from_scratch(**fields: Any) -> ConfigDict:
    """Train a small decoder from random weights on a CPU; `fields` are of its network, beside a preset's."""
    config = _run()
    config.model = model(dtype="float32", **fields)
    config.optimizer.learning_rate = 2e-3
    config.train = train(epochs(3), checkpoint_every=20)
    config.evaluation.batch = 100
    return config


def check_variant(variant: str, *known: str) -> None:
    """Raise ValueError where a config file has no such variant."""
    if variant not in known:
        raise ValueError(f"no variant {variant!r}; one of {', '.join(known)}")


def _run() -> ConfigDict:
    config = ConfigDict()
    config.arm = "coi12"  # which chain lengths it is tuned on (coi_jax/data/arms.py)
    config.seed = 0  # of initial weights, data order and dropout
    config.data = data(template="alpaca", batch=examples(256), length=1024)
    config.vocabulary = trained_vocabulary(4000)
    config.model = model(preset="llama")
    config.weights = ConfigDict(dict(folder=None))  # a published folder, or a run's; None: random weights
    config.lora = None  # adapters on frozen weights (`lora`); None: all weights are trained
    config.optimizer = adamw()
    config.train = train(epochs(3))
    config.mesh = mesh()
    config.evaluation = evaluation()
    config.logging = logging()
    return config


def data(template: str, batch: ConfigDict, length: int) -> ConfigDict:
    """Return which rows make a step's batch, and how.

    Args:
      template: how an example is laid out as text: plain, alpaca, chat or mistral.
      batch: the rows of a step: `examples` or `full_rows`.
      length: positions in a packed row; of the encoder, in a T5.
    """
    return ConfigDict(
        dict(
            folder="data/release",  # the dataset folder
            cache_folder="data/caches",  # token caches, shared by all runs
            split="train",
            template=template,  # plain, alpaca, or as the tokenizer lays out a conversation: chat, mistral
            chat=chat(),
            mixing="concatenate",  # each row once per epoch; rates: SeqIO's mixing rates; without ratios
            ratios=None,  # the share of each chain length, as {1: 0.2, 2: 0.8}; None: as many as there are rows
            max_examples=None,  # the first examples of a seeded order; None: all
            curriculum=None,  # the step from which each chain length is seen, as {1: 0, 2: 300}; None: all from step 0
            batch=batch,  # `examples` or `full_rows`
            length=length,  # positions in a packed row; of the encoder, in a T5
            targets_length=None,  # positions in a T5's decoder row; None for a decoder
            overlong="drop",  # examples longer than a row are counted and left out; or cut_inputs, cut_targets
            max_dropped=0.5,  # more left out than this share is an error
        )
    )


def chat() -> ConfigDict:
    """Return what a conversation holds besides the chain."""
    return ConfigDict(
        dict(
            system=None,  # the system prompt; None: the tokenizer's own, if it has one
            variables={},  # of a chat template, as `enable_thinking=False`
        )
    )


def examples(count: int) -> ConfigDict:
    """Return a batch of exactly `count` examples, packed into as many rows as the fullest step needs."""
    return ConfigDict(dict(count="examples", examples=count, rows=None))


def full_rows(count: int) -> ConfigDict:
    """Return a batch of `count` full rows."""
    return ConfigDict(dict(count="tokens", rows=count))


def trained_vocabulary(size: int) -> ConfigDict:
    """Return a SentencePiece vocabulary of `size` pieces, trained on the dataset."""
    return ConfigDict(dict(kind="trained", size=size))


def mistral_vocabulary(version: str) -> ConfigDict:
    """Return a tokenizer that mistral-common ships: v1, v2, v3, v7 or tekken."""
    return ConfigDict(dict(kind="mistral", version=version))


def tokenizer(folder: str) -> ConfigDict:
    """Return the tokenizer of a published model's folder."""
    return ConfigDict(dict(kind="tokenizer", folder=folder))


def model(preset: str | None, **fields: Any) -> ConfigDict:
    """Return a network: a published one or a family (coi_jax/families), with fields beside or in place of its own."""
    values = dict(
        preset=preset,
        dropout=0.0,  # share
        dtype="float32",  # of the computation; trained weights and the optimizer's state are float32
        attention="auto",  # a kernel where the device has one: splash on TPU, cudnn on GPU, else xla
        loss_chunk=None,  # positions of a device whose logits exist at once; None: all
        remat="none",  # what the backward pass keeps: none (all), dots_attention, dots, projections, attention, full
        scan_unroll=None,  # layers unrolled in one scan step; None: all on a CPU, else 1
    )
    return ConfigDict(values | fields)


def lora(rank: int) -> ConfigDict:
    """Return low-rank adapters on the linear maps of attention and MLP."""
    return ConfigDict(
        dict(
            rank=rank,
            alpha=16.0,  # what an adapter adds is multiplied by alpha / rank
            targets="attention|mlp",  # regular expression over the names of linear maps
            dropout=0.0,  # share, of the adapters' inputs
            rank_stabilized=False,  # multiply by alpha / √rank instead
            base_dtype="bfloat16",  # of the frozen matrices: float32, bfloat16, int8
        )
    )


def adamw() -> ConfigDict:
    """Return AdamW as the paper's trainer has it."""
    return ConfigDict(
        dict(
            name="adamw",  # its state takes 8 bytes per parameter; adafactor's nearly none
            options=dict(b1=0.9, b2=0.999, epsilon=1e-8),  # of this optimizer alone
            learning_rate=2e-5,  # its peak
            schedule="linear",  # the decay after warm-up: linear, cosine, constant
            warmup_ratio=0.03,  # share of all steps
            weight_decay=0.0,
            clip_norm=1.0,  # largest norm of the whole gradient; None: not clipped
        )
    )


def adafactor() -> ConfigDict:
    """Return Adafactor, whose state takes nearly no memory."""
    optimizer = adamw()
    optimizer.name, optimizer.options = "adafactor", ConfigDict()
    return optimizer


def train(length: ConfigDict, checkpoint_every: int = 100) -> ConfigDict:
    """Return how long to train (`epochs` or `steps`), and what to write down on the way."""
    return ConfigDict(
        dict(
            length=length,
            loss_on=all_steps(),  # or `last_step`, `weighted_steps`
            microbatches=1,  # parts of a step's rows, one after another
            log_every=10,  # steps
            checkpoint_every=checkpoint_every,  # steps
            checkpoint_minutes=30.0,  # since the last checkpoint; None: only by steps
            preemption_hours=None,  # between preemptions, to expect: sets the time between checkpoints; None: as above
            keep_checkpoints=2,  # the newest, and one to go on from where that is damaged
            on_not_finite="stop",  # at NaN or infinity; skip: such a step changes no weight, and the run goes on
            validation=None,  # or `validation`
        )
    )


def epochs(count: float) -> ConfigDict:
    """Return a length of `count` passes over the mixture."""
    return ConfigDict(dict(unit="epochs", count=float(count)))


def steps(count: int) -> ConfigDict:
    """Return a length of `count` optimizer steps."""
    return ConfigDict(dict(unit="steps", count=count))


def all_steps() -> ConfigDict:
    """Return the loss of all tokens of an answer alike."""
    return ConfigDict(dict(kind="all_steps"))


def last_step() -> ConfigDict:
    """Return the loss of the last step alone, with its label."""
    return ConfigDict(dict(kind="last_step"))


def weighted_steps(*weights: float) -> ConfigDict:
    """Return a loss with a weight for the first step, the second and so on; further steps have the last weight."""
    return ConfigDict(dict(kind="weighted_steps", weights=weights))


def validation(every: int, examples: int | None = None) -> ConfigDict:
    """Return the loss on the validation split, every so many steps, with the checkpoint where it was lowest."""
    return ConfigDict(
        dict(
            every=every,  # steps
            split="validation",
            examples=examples,  # None: all
            keep_best=True,  # the checkpoint, for evaluation.checkpoint = "best"
            generate_every=None,  # steps between answers to the split, which are scored; None: none
            generate_examples=100,  # chains that are answered, the same ones each time
            best_by="loss",  # or a score of the answers, as content_exact_match
        )
    )


def mesh() -> ConfigDict:
    """Return the number of devices along each axis; -1 takes all that the others leave."""
    return ConfigDict(dict(replica=1, fsdp=-1, tensor=1, sequence=1))


def evaluation() -> ConfigDict:
    """Return how answers are generated and scored."""
    return ConfigDict(
        dict(
            tests=("coi2_test", "coi3_test"),  # coi_jax/data/test_sets.py
            decoding=greedy(),  # or `sampling`, `beam_search`
            max_new_tokens=512,
            batch=128,  # prompts that are answered at the same time; fewer where prompts are long
            bootstrap=1000,  # resamples behind an interval
            examples=None,  # of each test set; None: all of them
            checkpoint="newest",  # or best: on the validation split
            shots=7,  # worked examples that arms cot and ltm show
            demonstrations=None,  # a JSON-lines file of chains that are the worked examples; None: training chains
        )
    )


def greedy() -> ConfigDict:
    """Return decoding that takes the most likely token."""
    return ConfigDict(dict(kind="greedy"))


def sampling(temperature: float = 1.0, top_p: float = 1.0) -> ConfigDict:
    """Return decoding that draws tokens by their probability."""
    return ConfigDict(dict(kind="sample", temperature=temperature, top_p=top_p))


def beam_search(beams: int, length_penalty: float = 1.0, early_stopping: bool = False) -> ConfigDict:
    """Return decoding that keeps the most likely continuations, with the settings of `transformers`.

    Args:
      beams: how many continuations are kept.
      length_penalty: exponent of the length that a continuation's log-likelihood is divided by.
      early_stopping: whether a row ends as soon as it has `beams` complete answers.
    """
    return ConfigDict(dict(kind="beam", beams=beams, length_penalty=length_penalty, early_stopping=early_stopping))


def logging() -> ConfigDict:
    """Return which services get the metrics of training, besides the run folder's own files."""
    return ConfigDict(
        dict(
            wandb_project=None,  # in Weights & Biases; None: not logged there
            mlflow_experiment=None,  # on the server of MLFLOW_TRACKING_URI; None: not logged there
            group=None,  # of the run; None: the name of the folder around the run folder, which is the sweep's
        )
    )
