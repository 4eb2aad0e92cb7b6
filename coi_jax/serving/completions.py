"""The two routes that answer prompts: `/v1/chat/completions` and `/v1/completions`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from coi_jax.inference.answering import Question, ask
from coi_jax.serving import replies
from coi_jax.serving.answers import Answers, Choice
from coi_jax.serving.errors import ApiError, as_api_errors
from coi_jax.serving.guard import read_body
from coi_jax.serving.prompting import conversation_ids, kept_steps_ids, raw_ids
from coi_jax.serving.requests import ChatCompletion, Completion, TextCompletion, read_request
from coi_jax.serving.service import Served, Service

CLIENT_GONE = 499  # as nginx counts it: nobody reads this reply

Result = TypeVar("Result")


@dataclass
class Exchange:
    """One request and what its reply needs.

    Attributes:
      served: the model that answers.
      asked: the request.
      head: of all parts of the reply.
      answers: that are being written.
      prompt_tokens: of each prompt, once for all of its answers.
      question: the chain that was asked, if it was one.
      before: what the model wrote in calls before the answer.
      top: the number of the likeliest tokens to tell at each place; None to tell nothing.
      steps: that a stream has told of, of each answer.
    """

    served: Served
    asked: Completion
    head: replies.Head
    answers: Answers
    prompt_tokens: list[int]
    question: Question | None = None
    before: Sequence[str] = ()
    top: int | None = None
    steps: list[replies.StepsTold] = field(init=False)

    def __post_init__(self) -> None:
        length = self.question.chain.length if self.question else 0
        self.steps = [replies.StepsTold(length) for _ in self.answers.choices]

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return an answer that has ended, as JSON."""
        text = choice.stream.text
        content: dict[str, Any] = {"message": _message(text)} if self.head.chat else {"text": text}
        return {"index": index, **content, **self._more(choice), "finish_reason": choice.finish}

    def part(self, index: int, choice: Choice, new: str) -> dict[str, Any]:
        """Return a part of an answer, as JSON.

        Args:
          index: of the answer.
          choice: the answer.
          new: what is new in its text.
        """
        content: dict[str, Any] = {"delta": {"content": new}} if self.head.chat else {"text": new}
        more = self._more(choice)
        if self.question is not None and choice.finish is None:
            more["coi"] = self.steps[index].news(choice.stream.text)
        return {"index": index, **content, **more, "finish_reason": choice.finish}

    def _more(self, choice: Choice) -> dict[str, Any]:
        """Return the log-probabilities of new tokens, and the steps of an answer that has ended."""
        tell = replies.chat_logprobs if self.head.chat else replies.text_logprobs
        told = None if self.top is None else tell(choice, self.served.model.vocabulary, self.top)
        more: dict[str, Any] = {"logprobs": told}
        if self.question is not None and choice.finish is not None:
            more["coi"] = replies.chain_of(self.question, self.before, choice)
        return more


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None}


async def chat_completions(service: Service, request: Request) -> Response:
    """Answer a conversation, or a chain of instructions step by step (the field `coi`)."""
    asked = read_request(ChatCompletion, await read_body(request))
    return await _reply(request, asked, lambda: _begin_chat(service, asked))


async def completions(service: Service, request: Request) -> Response:
    """Answer prompts that are shown to the model as they are."""
    asked = read_request(TextCompletion, await read_body(request))
    return await _reply(request, asked, lambda: _begin_text(service, asked))


async def _begin_chat(service: Service, asked: ChatCompletion) -> Exchange:
    served, question, before = service.find(asked.model), None, list[str]()
    forced: tuple[int, ...] = ()
    if asked.coi is None:
        ids = await run_in_threadpool(conversation_ids, served.model, asked.messages)
    else:
        question = await run_in_threadpool(_question, served, asked)
        before = await _earlier_stages(service, served, asked, question)
        ids = await run_in_threadpool(question.encode, before)
        forced = kept_steps_ids(served.model.vocabulary, asked.coi.outputs, len(asked.coi.instructions))
    param = "messages" if asked.coi is None else "coi"
    told = (asked.top_logprobs or 0) if asked.logprobs else None
    prompts = service.make_prompts(served, asked, ids, forced=forced, logprobs=told is not None, param=param)
    answers = service.answer(served, asked, prompts, is_followed=bool(asked.stream))
    head = replies.Head(served.name, chat=True)
    return Exchange(served, asked, head, answers, [len(prompts[0].tokens)], question, before, told)


def _question(served: Served, asked: ChatCompletion) -> Question:
    assert asked.coi is not None
    if asked.messages:
        raise ApiError(400, "coi: holds the whole question; leave messages empty", "coi", "invalid_value")
    with as_api_errors("coi"):
        return ask(served.model, asked.coi.instructions, asked.coi.input)


async def _earlier_stages(service: Service, served: Served, asked: ChatCompletion, question: Question) -> list[str]:
    """Return what the model writes in the calls before the answer, where its way of prompting has several."""
    texts: list[str] = []
    alone = Completion(temperature=asked.temperature, top_p=asked.top_p, seed=asked.seed)
    for _ in question.stages[:-1]:
        ids = await run_in_threadpool(question.encode, texts)
        prompts = service.make_prompts(served, alone, ids, param="coi")
        [choice] = await service.answer(served, alone, prompts, is_followed=False).finished()
        texts.append(choice.stream.text)
    return texts


async def _begin_text(service: Service, asked: TextCompletion) -> Exchange:
    served, told = service.find(asked.model), asked.logprobs
    every = []
    for text in asked.prompts:
        ids = await run_in_threadpool(raw_ids, served.model, text)
        every.append(service.make_prompts(served, asked, ids, logprobs=told is not None, param="prompt"))
    prompts = [prompt for some in every for prompt in some]
    answers = service.answer(served, asked, prompts, is_followed=bool(asked.stream))
    head = replies.Head(served.name, chat=False)
    return Exchange(served, asked, head, answers, [len(some[0].tokens) for some in every], top=told)


async def _reply(request: Request, asked: Completion, begin: Callable[[], Awaitable[Exchange]]) -> Response:
    """Return the reply: at once and in parts for a stream, whole when the answers have ended otherwise."""
    if asked.stream:
        exchange = await _while_there(request, begin())
        return StreamingResponse(_events(exchange), media_type="text/event-stream") if exchange else _gone()
    whole = await _while_there(request, _whole(begin))
    return JSONResponse(whole) if whole else _gone()


def _gone() -> Response:
    return Response(status_code=CLIENT_GONE)


async def _while_there(request: Request, work: Awaitable[Result]) -> Result | None:
    """Return a result; None where the client has gone, and the work is ended."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApiError):
                await each


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(begin: Callable[[], Awaitable[Exchange]]) -> dict[str, Any]:
    exchange = await begin()
    choices = await exchange.answers.finished()
    told = [exchange.choice(index, choice) for index, choice in enumerate(choices)]
    return exchange.head.reply(told, usage=replies.usage(exchange.prompt_tokens, choices))


async def _events(exchange: Exchange) -> AsyncIterator[str]:
    """Yield the parts of a reply as server-sent events."""
    head, choices = exchange.head, exchange.answers.choices
    if head.chat:
        begins = {"role": "assistant", "content": "", "refusal": None}
        parts = [{"index": n, "delta": begins, "logprobs": None, "finish_reason": None} for n in range(len(choices))]
        yield _event(head.reply(parts, is_part=True))
    try:
        async with contextlib.aclosing(exchange.answers.changes()) as changes:
            async for news in changes:
                for one in news:
                    yield _event(head.reply([exchange.part(*one)], is_part=True))
    except ApiError as error:
        yield _event(error.body())
        return
    if exchange.asked.tells_usage:
        yield _event(head.reply([], is_part=True, usage=replies.usage(exchange.prompt_tokens, choices)))
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
