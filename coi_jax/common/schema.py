"""The base of all configs: sections of fields that pydantic validates."""

from typing import Annotated

import pydantic
from pydantic import Field

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(pydantic.BaseModel):
    """A group of fields; frozen, and nothing besides them is allowed."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
