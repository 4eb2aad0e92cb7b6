"""The peer's side of the training benchmarks: transformers and torch, with the steps of transformers' Trainer.

A step is forward, loss, backward, clipping, update, zero_grad; the loss is the sum over target tokens divided by their
number in all of the step's microbatches (Trainer's `num_items_in_batch`), as here.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import sides

IGNORED = -100  # a label without loss
Arguments = dict[str, torch.Tensor]


class Peer:
    """A model, its optimizer and its batches.

    Settings: `recipe` is "packed" (the same rows, with positions and a block-diagonal causal mask) or "padded" (one
    example a row, in random order, each microbatch padded to its longest: the paper's collator), `microbatch` the rows
    of a microbatch. `adapters` is a folder of peft's whose adapters alone are trained, or "".
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._recipe, self._rows = settings["recipe"], settings["microbatch"]
        self._optimizer_settings = settings["config"]["optimizer"]
        self._device = torch.device(settings["device"])
        self._dtype = getattr(torch, settings["config"]["model"]["dtype"])
        model: Any = AutoModelForCausalLM.from_pretrained(settings["weights"], dtype=self._dtype)
        if settings["checkpointing"]:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if settings["adapters"]:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, settings["adapters"], is_trainable=True)
        self._model = model.to(self._device).train()
        self._parameters = [weight for weight in self._model.parameters() if weight.requires_grad]
        self._optimizer = make_optimizer(self._parameters, self._optimizer_settings)
        self._batches = dict(np.load(Path(settings["batches"])))

    def choose_attention(self, names: list[str]) -> dict[str, float]:
        """Go on with the fastest kind of attention: seconds of a forward and backward pass of the first step."""
        seconds = {}
        for name in names:
            self._model.set_attn_implementation(name)
            parts = self._parts(0)
            self._gradient(parts[:1])  # a first pass is not timed
            began = self._now()
            self._gradient(parts)
            seconds[name] = self._now() - began
        self._model.set_attn_implementation(min(seconds, key=lambda name: seconds[name]))
        sides.forget_peak_memory()
        return seconds

    def steps(self, first: int, count: int) -> dict[str, Any]:
        """Take some optimizer steps; their seconds together, and the loss of each."""
        steps = [self._parts(step) for step in range(first, first + count)]
        began = self._now()
        losses = [self._step(parts) for parts in steps]
        seconds = self._now() - began
        positions = sum(part["input_ids"].numel() for parts in steps for part in parts)
        memory = torch.cuda.max_memory_allocated() if self._device.type == "cuda" else sides.peak_memory()
        return {
            "seconds": seconds,
            "losses": [loss.item() for loss in losses],
            "positions": positions,
            "memory": memory,
        }

    def device(self) -> dict[str, Any]:
        """Return what it runs on."""
        return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}

    def _step(self, parts: list[Arguments]) -> torch.Tensor:
        loss = self._gradient(parts, keep=True)
        torch.nn.utils.clip_grad_norm_(self._parameters, self._optimizer_settings["clip_norm"])
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def _gradient(self, parts: list[Arguments], *, keep: bool = False) -> torch.Tensor:
        """Return the loss of all parts together; gradients stay in the parameters only where they are to be kept."""
        total = torch.zeros((), device=self._device)
        for part in parts:
            loss = self._model(**part, use_cache=False).loss
            loss.backward()
            total += loss.detach()
        if not keep:
            self._optimizer.zero_grad(set_to_none=True)
        return total

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _parts(self, step: int) -> list[Arguments]:
        """Return the microbatches of a step, ready on the device: what a collator does is not timed."""
        batch = {name: array[step] for name, array in self._batches.items()}
        targets = torch.tensor(int(batch["weights"].sum()), device=self._device)
        make = self._packed if self._recipe == "packed" else self._padded
        parts = make(batch, step)
        return [
            {name: value.to(self._device) for name, value in part.items()} | {"num_items_in_batch": targets}
            for part in parts
        ]

    def _packed(self, batch: dict[str, np.ndarray], step: int) -> Iterator[Arguments]:
        for start in range(0, len(batch["tokens"]), self._rows):
            yield self._packed_part({name: array[start : start + self._rows] for name, array in batch.items()})

    def _packed_part(self, batch: dict[str, np.ndarray]) -> Arguments:
        labels = torch.from_numpy(np.where(batch["weights"] == 1, batch["targets"], IGNORED).astype(np.int64))
        return {
            "input_ids": torch.from_numpy(batch["tokens"].astype(np.int64)),
            "position_ids": torch.from_numpy(batch["positions"].astype(np.int64)),
            "attention_mask": block_diagonal(torch.from_numpy(batch["segments"]), self._dtype),
            "labels": labels,
            "shift_labels": labels,
        }

    def _padded(self, batch: dict[str, np.ndarray], step: int) -> Iterator[Arguments]:
        examples = unpack(batch)
        order = np.random.default_rng(step).permutation(len(examples))
        for start in range(0, len(order), self._rows):
            chosen = [examples[index] for index in order[start : start + self._rows]]
            ids, labels = ([torch.from_numpy(example[part]) for example in chosen] for part in (0, 1))
            kept = [torch.ones(len(one), dtype=torch.int64) for one in ids]
            pad = torch.nn.utils.rnn.pad_sequence
            yield {
                "input_ids": pad(ids, batch_first=True),
                "attention_mask": pad(kept, batch_first=True),
                "labels": pad(labels, batch_first=True, padding_value=IGNORED),
            }


def make_optimizer(parameters: list[torch.nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW in torch's fused form (Trainer's default), or Adafactor as Trainer has it."""
    if settings["name"] == "adamw":
        options, rate, decay = settings["options"], settings["learning_rate"], settings["weight_decay"]
        betas = (options["b1"], options["b2"])
        return torch.optim.AdamW(parameters, rate, betas, options["epsilon"], decay, fused=True)
    from transformers.optimization import Adafactor

    adafactor: torch.optim.Optimizer = Adafactor(parameters, settings["learning_rate"], relative_step=False)
    return adafactor


def block_diagonal(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to the scores, [rows, 1, length, length]: each position sees its own example up to itself.

    In the compute dtype, since torch would otherwise make it so in every layer.
    """
    same = segments[:, :, None] == segments[:, None, :]
    seen = same & torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def unpack(batch: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the ids and labels of every example of a packed batch, the last id included."""
    examples = []
    for row, segments in enumerate(batch["segments"]):
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            tokens, targets, weights = (batch[name][row, places] for name in ("tokens", "targets", "weights"))
            labels = np.where(weights == 1, targets, IGNORED)
            examples.append(
                (np.append(tokens, targets[-1:]).astype(np.int64), np.append([IGNORED], labels).astype(np.int64))
            )
    return examples


if __name__ == "__main__":
    sides.serve(Peer)
