"""What a test server says: texts of replies that follow from the request alone."""

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]
Fields = dict[str, str]
FENCED = re.compile(r"<<(\w+) ([0-9a-f]{12})\n(.*?)\n\2 \1>>", re.DOTALL)
STEP = re.compile(r"^(\d+)\. (.*)\nOutput \1: ([\s\S]*?)(?=\n\d+\. .*\nOutput |\Z)", re.MULTILINE)
ERRORS = 0.1  # share of the erring oracle's replies that are wrong


def echo() -> Callable[[Request], str]:
    return lambda request: json.dumps({"output": f"an answer to {len(request['messages'])} turns"})


def reader() -> Callable[[Request], str]:
    """Reads the project's prompts, and answers by simple rules where a model would think."""
    return lambda request: json.dumps(_read(*question(request)))


def erring_oracle() -> Callable[[Request], str]:
    """Computes answers on procedural operations, and is wrong now and then."""

    def answer(request: Request) -> str:
        name, fields = question(request)
        form = _question(name, fields).computed_reply()
        value = form.model_dump() if form else {"refusal": "not an operation"}
        return json.dumps(_wrong(name, value) if draw(fields).random() < ERRORS else value)

    return answer


def question(request: Request) -> tuple[str, Fields]:
    """The name of a request's prompt, and its fields; what came later, as a wish for repair, changes neither."""
    from data_pipeline.build.asking.questions import prompt
    from data_pipeline.build.llm_stages import prompts

    system = request["messages"][0]["content"]
    name = next(name for name in prompts() if prompt(name).system.strip() == system)
    asked = request["messages"][1 + 2 * len(prompt(name).examples)]["content"]
    return name, {field: text for field, _, text in FENCED.findall(asked)}


def draw(fields: Fields) -> random.Random:
    return random.Random(hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest())


def _read(name: str, fields: Fields) -> dict[str, Any]:
    chance = draw(fields)
    if name == "summarize":
        return {"instruction": " ".join(re.split(r"[.\n]", fields["definition"])[0].split()[:14]) + "."}
    if name == "categorize":
        return {"category": chance.choice(fields["categories"].split("\n"))}
    if name == "check":
        number = len(fields["output"].split())
        return {"reason": f"The first gives {number} words.", "composable": chance.random() < 0.75}
    if name.startswith("work_"):
        return {"work": [], "answer": fields["input"]}
    if name == "answer":
        words = (fields["input"] + " " + fields["instruction"]).split()
        return {"output": " ".join(chance.sample(words, min(len(words), 12)))}
    if name == "judge":
        score = chance.choice((1, 2, 3, 4, 4, 5, 5, 5))
        return {"reason": "As it seems.", "valid": score > 3, "score": score, "wrong_step": 2 if score < 4 else None}
    return {"instruction": "Do it all at once: " + fields["instructions"].split("\n")[-1]}


def _question(name: str, fields: Fields) -> Any:
    from data_pipeline.build.llm_stages import LLM_STAGES

    kind = next(stage.question_class for stage in LLM_STAGES if stage.question_class.prompt == name)
    values: dict[str, Any] = {field.name: fields.get(field.name, "") for field in dataclasses.fields(kind)}
    if name == "judge":
        values["steps"] = tuple((instruction, output) for _, instruction, output in STEP.findall(fields["steps"]))
    if name == "fuse":
        values["instructions"] = tuple(line.partition(". ")[2] for line in fields["instructions"].split("\n"))
    return kind(**values)


def _wrong(name: str, value: dict[str, Any]) -> dict[str, Any]:
    if name == "check":
        return value | {"composable": not value["composable"]}
    if name.startswith("work_"):
        return value | {"answer": value["answer"] + ", and more"}
    if name == "answer":
        return value | {"output": value["output"] + ", and more"}
    if name == "judge":
        return value | {"valid": not value["valid"], "score": 2 if value["valid"] else 5}
    return value


BRAINS: dict[str, Callable[[], Callable[[Request], str]]] = {
    "echo": echo,
    "reader": reader,
    "erring_oracle": erring_oracle,
}
