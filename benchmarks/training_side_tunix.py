"""The side of Google's Tunix in the training benchmark: its Llama, its loss, and the step of its PeftTrainer.

Runs with the interpreter of an environment that has google-tunix, and imports nothing of this project that needs more.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from benchmarks import machine, sides


class Tunix:
    """A PeftTrainer, whose steps are taken one at a time on the packed batches of a file."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = settings["config"]
        model = params.create_model_from_safe_tensors(
            settings["weights"], model_config(config["model"]), dtype=jnp.dtype(config["model"]["dtype"])
        )
        trainer = PeftTrainer(model, make_optimizer(config["optimizer"]), TrainingConfig(eval_every_n_steps=1))
        trainer = trainer.with_gen_model_input_fn(model_input).with_loss_fn(with_targets(trainer.loss_fn))
        # Its loop compiles a second time where the first step's state was not yet bound to a device, as the others are.
        nnx.update(trainer.optimizer, jax.device_put(nnx.state(trainer.optimizer), jax.devices()[0]))
        self._trainer = trainer
        self._step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)  # as its own loop does
        self._batches = dict(np.load(Path(settings["batches"])))

    def steps(self, first: int, count: int) -> dict[str, Any]:
        """Take some optimizer steps; their seconds together, and the loss of each."""
        losses = []
        began = time.perf_counter()
        for step in range(first, first + count):
            loss, _, _ = self._step({name: jnp.asarray(array[step]) for name, array in self._batches.items()})
            losses.append(loss)
        jax.block_until_ready((losses, nnx.state(self._trainer.model)))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "losses": [float(loss) for loss in losses], "memory": sides.peak_memory()}

    def packages(self) -> dict[str, str]:
        """Return the versions of this environment."""
        return machine.packages()


def model_config(model: dict[str, Any]) -> llama.ModelConfig:
    """Return Tunix's config of the network of a run's `model` section."""
    return llama.ModelConfig(
        num_layers=model["layers"],
        vocab_size=model["vocabulary_size"],
        embed_dim=model["model_dim"],
        hidden_dim=model["mlp_dim"],
        num_heads=model["heads"],
        head_dim=model["head_dim"],
        num_kv_heads=model["kv_heads"],
        rope_theta=model["rope"]["theta"],
        norm_eps=model["norm_epsilon"],
        weight_tying=model["tied_embedding"],
    )


def make_optimizer(settings: dict[str, Any]) -> optax.GradientTransformation:
    """Return clipping and AdamW, by a run's `optimizer` section."""
    options = settings["options"]
    clip = [] if settings["clip_norm"] is None else [optax.clip_by_global_norm(settings["clip_norm"])]
    adamw = optax.adamw(
        settings["learning_rate"],
        options["b1"],
        options["b2"],
        options["epsilon"],
        weight_decay=settings["weight_decay"],
    )
    return optax.chain(*clip, adamw)


def model_input(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the arguments of the loss for packed rows: each position sees its own example up to itself."""
    segments = batch["segments"]
    same = segments[:, :, None] == segments[:, None, :]
    return {
        "tokens": batch["tokens"],
        "targets": batch["targets"],
        "weights": batch["weights"],
        "positions": batch["positions"],
        "attention_mask": jnp.tril(same),
    }


def with_targets(default_loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return Tunix's own loss for targets that are given.

    Its default takes the next input token as the target of each position; in a packed row the last target of an example
    is not among the inputs. So it is called with the targets, moved to where it looks for them, in place of the inputs,
    and with one more position of logits, which it drops. XLA removes both the addition and the removal.
    """

    def loss(
        model: nnx.Module,
        tokens: jax.Array,
        targets: jax.Array,
        weights: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array,
    ) -> Any:
        def padded_model(_: jax.Array, *arguments: Any) -> tuple[jax.Array, Any]:
            logits, cache = model(tokens, *arguments)
            return jnp.pad(logits, ((0, 0), (0, 1), (0, 0))), cache

        moved = [jnp.pad(array, ((0, 0), (1, 0))) for array in (targets, weights)]
        return default_loss(padded_model, *moved, positions, attention_mask)

    return loss


if __name__ == "__main__":
    sides.serve(Tunix)
