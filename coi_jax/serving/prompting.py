"""From a request to the prompts of a model, in the words that its run was trained with."""

import itertools
import json
from collections.abc import Sequence

import numpy as np

from coi_jax.chains.chain import render
from coi_jax.config.run import SamplingConfig
from coi_jax.data.prompts import CHATS, encode_prompt, prompt
from coi_jax.inference.model import Model
from coi_jax.inference.request_decoding import RequestOptions
from coi_jax.inference.rows import Prompt
from coi_jax.serving.errors import ApiError, as_api_errors
from coi_jax.serving.requests import Completion, Message
from coi_jax.tokenizers.protocol import Vocabulary

BEGINNINGS = ("a", "The", "Z", "7", '"', "(", "-", "é", "日")  # of outputs, which no vocabulary encodes alike
COLDEST = 1e-3  # a lower temperature is greedy decoding: nothing but the likeliest token has a chance


def conversation_ids(model: Model, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a conversation, laid out as the model's training did.

    A run whose template is no conversation reads earlier turns as it reads worked examples.

    Raises:
      ApiError: the conversation has no turn of the user at its end, or its turns are in an order that is none.
    """
    if not messages or messages[-1].role != "user":
        raise ApiError(400, "messages: the last one should be the user's", "messages", "invalid_value")
    data, turns = model.config.data, [(_role(message), message.text) for message in messages]
    if data.template in CHATS:
        if turns[0][0] != "system" and data.chat.system is not None:
            turns.insert(0, ("system", data.chat.system))
        text = json.dumps([{"role": role, "content": content} for role, content in turns], ensure_ascii=False)
    else:
        text = _without_turns(turns, data.template)
    with as_api_errors("messages"):
        return encode_prompt(text, data.template, model.vocabulary)


def _without_turns(turns: Sequence[tuple[str, str]], template: str) -> str:
    """Return a conversation in a template that has no turns: the system's message stands in the first instruction."""
    start = "\n\n".join(content for role, content in turns if role == "system")
    said = [content for role, content in turns if role != "system"]
    due = ["system"] * (len(turns) - len(said)) + (["user", "assistant"] * len(said))[: len(said)]
    if [role for role, _ in turns] != due:
        hint = "after the system's, turns of user and assistant should follow one another"
        raise ApiError(400, f"messages: {hint}", "messages", "invalid_value")
    said[0] = f"{start}\n\n{said[0]}" if start else said[0]
    asked = [prompt(instruction, "", template) for instruction in said[::2]]
    shown = [f"{text} {answer}" for text, answer in zip(asked, said[1::2], strict=False)]
    return "\n\n".join([*shown, asked[-1]])


def raw_ids(model: Model, text: str) -> list[int]:
    """Return the ids of a prompt that is shown as it is."""
    return encode_prompt(text, "plain", model.vocabulary)


def kept_steps_ids(vocabulary: Vocabulary, outputs: Sequence[str], length: int) -> tuple[int, ...]:
    """Return the ids that an answer begins with, where the outputs of the first steps are given.

    They are those that all answers share which go on in different ways: where the next output begins within a token,
    as a space before its first word often is, that token is left to the model.

    Args:
      vocabulary: of the model.
      outputs: of the first steps.
      length: of the whole chain.
    """
    if not outputs:
        return ()
    rest = [""] * (length - len(outputs) - 1)
    texts = [vocabulary.encode(render([*outputs, beginning, *rest])) for beginning in BEGINNINGS]
    shared = itertools.takewhile(lambda tokens: len({*tokens}) == 1, zip(*texts, strict=False))
    return tuple(tokens[0] for tokens in shared)


def make_prompt(
    model: Model, ids: Sequence[int], options: RequestOptions, choice: int, longest: int, *, param: str
) -> Prompt:
    """Return a prompt with its begin id.

    Args:
      model: that is asked.
      ids: of the prompt.
      options: of the request.
      choice: the number of the answer among those to the same prompt; each draws on its own.
      longest: tokens that a prompt may have.
      param: the field of the request that holds the prompt.

    Raises:
      ApiError: the prompt has no token, which nothing follows from, or too many.
    """
    with as_api_errors(param):
        made = model.prompt(str(choice), np.asarray(ids, np.int32))
    if not len(made.tokens):
        raise ApiError(400, f"{param}: has no token; write a prompt", param, "invalid_value")
    if len(made.tokens) > longest:
        hint = f"the prompt has {len(made.tokens)} tokens, and this server reads at most {longest}; shorten it"
        raise ApiError(400, f"{param}: {hint}", param, "context_length_exceeded")
    return Prompt(made.id, made.tokens, options)


def options_of(
    model: Model, asked: Completion, limit: int, seed: int, forced: tuple[int, ...], *, logprobs: bool
) -> RequestOptions:
    """Return how an answer is decoded: as the request says, and else as the run's config does.

    Args:
      model: that is asked.
      asked: the request.
      limit: tokens of the longest answer.
      seed: of a request that names none.
      forced: ids that the answer begins with.
      logprobs: whether log-probabilities are told.

    Raises:
      ApiError: more tokens are asked for than an answer may have.
    """
    if len(forced) >= limit:
        hint = f"the outputs have {len(forced)} tokens, and answers at most {limit}, these included; give shorter ones"
        raise ApiError(400, f"coi.outputs: {hint}", "coi.outputs", "invalid_value")
    most = asked.limit or limit - len(forced)
    if len(forced) + most > limit:
        kept = f", {len(forced)} of them for the steps that are given" if forced else ""
        hint = f"answers have at most {limit} tokens{kept}; a server that is started with --max_new_tokens writes more"
        raise ApiError(400, f"max_tokens: {most}: {hint}", "max_tokens", "invalid_value")
    decoding = model.config.evaluation.decoding
    sampled = decoding if isinstance(decoding, SamplingConfig) else None
    temperature = asked.temperature if asked.temperature is not None else sampled.temperature if sampled else 0.0
    temperature = temperature if temperature >= COLDEST else 0.0
    top_p = asked.top_p if asked.top_p is not None else sampled.top_p if sampled else 1.0
    chosen = asked.seed if asked.seed is not None else seed
    return RequestOptions(len(forced) + most, temperature, top_p, chosen, forced, logprobs)


def _role(message: Message) -> str:
    """Return a role by the name that chat templates know."""
    return "system" if message.role == "developer" else message.role
