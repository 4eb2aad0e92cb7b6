"""Replies in the form of OpenAI's API: whole ones, and the parts of a stream."""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coi_jax.chains.chain import label_starts, parse
from coi_jax.inference.answering import Question
from coi_jax.serving.answers import Choice
from coi_jax.tokenizers.protocol import Vocabulary

# The beginning of a label that is not yet whole, at the end of a text.
_PART_OF_A_LABEL = re.compile(r"\n?[ ]?(T|Ta|Tas|Task( [^:\n]*)?)$")


@dataclass(frozen=True)
class Head:
    """What all parts of a reply begin with.

    Attributes:
      model: that answers, by its name here.
      chat: whether the reply is that of a chat.
      id: of the reply.
      created: in seconds since 1970.
    """

    model: str
    chat: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def reply(self, choices: list[dict[str, Any]], *, is_part: bool = False, **more: Any) -> dict[str, Any]:
        """Return a reply, or a part of one.

        Args:
          choices: as JSON.
          is_part: whether it is a part of a stream.
          **more: fields besides.
        """
        kind = ("chat.completion.chunk" if is_part else "chat.completion") if self.chat else "text_completion"
        begins = {"id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}", "object": kind, "created": self.created}
        return {**begins, "model": self.model, "choices": choices, **more}


def usage(prompts: Sequence[int], choices: Sequence[Choice]) -> dict[str, int]:
    """Return the numbers of tokens.

    Args:
      prompts: tokens of each prompt, once for all of its answers.
      choices: all answers.
    """
    read, written = sum(prompts), sum(choice.written for choice in choices)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def chain_of(question: Question, before: Sequence[str], choice: Choice) -> dict[str, Any]:
    """Return the field `coi` of an answer that has ended.

    Args:
      question: that was asked.
      before: what the model wrote in calls before, where the way of prompting has several.
      choice: the answer.
    """
    found = question.describe([*before, choice.stream.text], complete=choice.finish != "length")
    kept = ("steps", "complete", "well_formed", "checkpoint", "stages")
    return {key: found[key] for key in kept if key in found}


def outputs_so_far(text: str, length: int) -> tuple[str, ...]:
    """Return the outputs of the steps in a text that grows; a label that has only begun is in none of them.

    Args:
      text: as far as it is written.
      length: steps that are asked for.
    """
    certain = _PART_OF_A_LABEL.sub("", text)
    if length > 1 and not label_starts(certain):
        return ()
    return tuple(output.strip() for output in parse(certain))


@dataclass
class StepsTold:
    """The outputs of steps that a stream has told of."""

    length: int
    outputs: tuple[str, ...] = ()

    def news(self, text: str) -> dict[str, Any]:
        """Return the steps whose output is new or longer, as the field `coi` of a part of a stream."""
        outputs = outputs_so_far(text, self.length)
        changed = [
            {"step": step, "output": output}
            for step, output in enumerate(outputs, 1)
            if step > len(self.outputs) or self.outputs[step - 1] != output
        ]
        self.outputs = outputs
        return {"steps": changed}


def chat_logprobs(choice: Choice, vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    """Return the log-probabilities of tokens that were not told of before, as a chat tells them.

    Args:
      choice: the answer.
      vocabulary: of the model.
      top: the likeliest tokens that are told at each place.
    """
    content = []
    for place in _new_places(choice):
        token, others = _told(choice, vocabulary, place, top)
        content.append({**token, "top_logprobs": others})
    return {"content": content, "refusal": None}


def text_logprobs(choice: Choice, vocabulary: Vocabulary, top: int) -> dict[str, Any]:
    """Return the log-probabilities of tokens that were not told of before, as a completion of text tells them.

    Args:
      choice: the answer.
      vocabulary: of the model.
      top: the likeliest tokens that are told at each place.
    """
    told = [(place, *_told(choice, vocabulary, place, top)) for place in _new_places(choice)]
    return {
        "tokens": [token["token"] for _, token, _ in told],
        "token_logprobs": [token["logprob"] for _, token, _ in told],
        "top_logprobs": [{one["token"]: one["logprob"] for one in others} for _, _, others in told],
        "text_offset": [len(vocabulary.decode(choice.update.tokens[:place])) for place, _, _ in told],
    }


def _new_places(choice: Choice) -> range:
    """Return the places of tokens that were not told of before, which are then told."""
    end = choice.stream.used
    places = range(choice.told, end)
    choice.told = max(choice.told, end)
    return places


def _told(choice: Choice, vocabulary: Vocabulary, place: int, top: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a token with its log-probability, and the likeliest tokens at its place with theirs."""
    tokens, logprobs = choice.update.tokens, choice.update.logprobs
    assert logprobs is not None
    before = tokens[max(0, place - 1) : place]  # what a token reads as may depend on the one before

    def told(token: int, logprob: float) -> dict[str, Any]:
        text = vocabulary.decode([*before, token])[len(vocabulary.decode(before)) :]
        return {"token": text, "logprob": float(logprob), "bytes": list(text.encode("utf-8"))}

    others = zip(logprobs.top_ids[place][:top].tolist(), logprobs.top[place][:top].tolist(), strict=True)
    return told(tokens[place], float(logprobs.chosen[place])), [told(token, logprob) for token, logprob in others]
