"""Chains of a run's own test sets, for people who want something to ask."""

from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coi_jax.chains.chain import Chain
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data.task_specs import available_tests, evaluation_task
from coi_jax.serving.service import Service

MOST = 50


async def examples(service: Service, request: Request) -> Response:
    """List chains of the test sets of the model `?model=`, with the reference outputs of their steps."""
    served = service.find(request.query_params.get("model"))
    return JSONResponse({"object": "list", "data": await run_in_threadpool(find_examples, served.model.config)})


def find_examples(config: RunConfig) -> list[dict[str, Any]]:
    """Return as many of the first chains of each test set; none where the run's dataset is not on this machine."""
    tests = available_tests(config)
    try:
        return [
            _describe(test, chain)
            for test in tests
            for chain in islice(evaluation_task(config, test).read_rows(), MOST // len(tests))
        ]
    except UserError:
        return []


def _describe(test: str, chain: Chain) -> dict[str, Any]:
    """Return a chain as the field `coi` asks it; the reference of a step that has none is null."""
    instructions = [step.instruction for step in chain.steps]
    return {
        "test": test,
        "id": chain.id,
        "input": chain.input,
        "instructions": instructions,
        "references": chain.outputs,
    }
