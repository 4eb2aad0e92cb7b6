"""The peer's side of the generation benchmarks: `generate` of transformers."""

import itertools
import time
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import sides


class Peer:
    """A model with given weights, and prompts."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings, self._device = settings, torch.device(settings["device"])
        dtype = getattr(torch, settings["model"]["dtype"])
        model: Any = AutoModelForCausalLM.from_pretrained(settings["weights"], dtype=dtype)
        self._model = model.to(self._device).eval()
        self._prompts: list[list[int]] = settings["prompts"]

    @torch.inference_mode()
    def generate(self, batch: int) -> dict[str, Any]:
        """Answer all prompts, `batch` of like length together; the seconds it took, and the tokens of each."""
        order = sorted(range(len(self._prompts)), key=lambda index: -len(self._prompts[index]))
        tokens: list[list[int]] = [[] for _ in order]
        began = self._now()
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            for index, answer in zip(chosen, self._answers([self._prompts[index] for index in chosen]), strict=True):
                tokens[index] = answer
        return {"seconds": self._now() - began, "tokens": tokens}

    def _answers(self, prompts: list[list[int]]) -> list[list[int]]:
        """Return the new tokens of each prompt up to its end id; the batch is padded on the left."""
        length = max(map(len, prompts))
        ids = torch.zeros(len(prompts), length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :], mask[row, length - len(prompt) :] = torch.tensor(prompt), 1
        ends = self._settings["ends"]
        written = self._model.generate(
            ids.to(self._device),
            attention_mask=mask.to(self._device),
            do_sample=False,
            max_new_tokens=self._settings["max_new_tokens"],
            pad_token_id=0,
            eos_token_id=ends or None,
        )[:, length:].tolist()
        return [list(itertools.takewhile(lambda token: token not in ends, answer)) for answer in written]

    @torch.inference_mode()
    def gaps(self, prefixes: list[tuple[int, list[int]]], tokens: list[tuple[int, int]]) -> list[float]:
        """Return the difference of the logits of two tokens after a prompt and some of its answer, here.

        Args:
          prefixes: number of the prompt, and the tokens written so far.
          tokens: the two that came next on the two sides.
        """
        found = []
        for (index, written), pair in zip(prefixes, tokens, strict=True):
            ids = torch.tensor([[*self._prompts[index], *written]], device=self._device)
            logits = self._model(ids, use_cache=False).logits[0, -1].float().cpu().numpy()
            found.append(float(np.ptp(logits[list(pair)])))
        return found

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


if __name__ == "__main__":
    sides.serve(Peer)
