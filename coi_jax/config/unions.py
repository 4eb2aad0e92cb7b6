"""Fields that hold one of several sections: tagged unions, as pydantic spells them in annotations."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from coi_jax.common.schema import Section


class Place(NamedTuple):
    """A place in a config where a section stands.

    Attributes:
      options: the sections that may stand there; none where the field holds plain values.
      tag: the field that says which of several it is.
    """

    options: tuple[type[Section], ...]
    tag: str | None

    def section(self, values: Mapping[str, Any] | None) -> type[Section]:
        """Return the section that some values are meant for; the first one where their tag names none."""
        named = (values or {}).get(self.tag or "")
        return next((option for option in self.options if self.tag and named in self.tags(option)), self.options[0])

    def tags(self, option: type[Section]) -> tuple[str, ...]:
        """Return the values of the tag that name an option."""
        return typing.get_args(option.model_fields[self.tag].annotation) if self.tag else ()

    @property
    def all_tags(self) -> list[str]:
        """The values of the tag that name any option."""
        return [tag for option in self.options for tag in self.tags(option)]


def place_of(info: FieldInfo) -> Place:
    """Return the place that a field is."""
    options = tuple(kind for kind in plain_types(info.annotation) if issubclass(kind, Section))
    return Place(options, info.discriminator if isinstance(info.discriminator, str) else None)


def union_members(annotation: Any) -> set[Any]:
    """Return the types that a value may have; those inside containers are not among them."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return {member for inner in typing.get_args(annotation) for member in union_members(inner)}
    return {annotation} if isinstance(annotation, type) else set()


def plain_types(annotation: Any) -> Iterator[type]:
    """Yield the types of an annotation, those inside unions and containers included."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from plain_types(inner)
