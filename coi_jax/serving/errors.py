"""Errors in the form of OpenAI's API: a status, a message, and the field that it is about."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from coi_jax.common.errors import LONGEST_HINT, UserError, one_line

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
SERVER_ERROR = 500  # and statuses above


class ApiError(Exception):
    """A request that is not answered, as the client is told.

    Args:
      status: of HTTP.
      message: what is wrong, and how to correct it.
      param: the field that it is about, if any.
      code: a word for programs, if any.
      headers: of the reply, besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = one_line(message, LONGEST_HINT)  # as it may quote what the client sent
        super().__init__(self.message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def body(self) -> dict[str, Any]:
        """Return the JSON object that OpenAI's clients read."""
        other = "server_error" if self.status >= SERVER_ERROR else "invalid_request_error"
        kind = TYPES.get(self.status, other)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def reply(self) -> JSONResponse:
        """Return the reply of HTTP."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


@contextlib.contextmanager
def as_api_errors(param: str) -> Iterator[None]:
    """Turn a user's mistake within the block into the error of a field of the request."""
    try:
        yield
    except UserError as error:
        raise ApiError(400, str(error), param, "invalid_value") from None


async def reply_to(_: Request, error: Exception) -> JSONResponse:
    """Return the reply to an error, as a handler of Starlette: of a route that there is not, or of the server."""
    if isinstance(error, ApiError):
        return error.reply()
    status = getattr(error, "status_code", SERVER_ERROR)
    if status == SERVER_ERROR:
        return ApiError(status, "the server failed at this request; its log says why").reply()
    return ApiError(status, f"{getattr(error, 'detail', error)}: see /v1/models, /v1/chat/completions").reply()
