"""Fields that hold one of several sections: tagged unions, as pydantic spells them in annotations."""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from coi_jax.common.schema import Section


class Place(NamedTuple):
    """A place in a config where a section stands.

    Attributes:
      options: the sections that may stand there; none where the field holds plain values.
      tag: the field that says which of several it is.
      wider: the place with all options, where one was chosen.
    """

    options: tuple[type[Section], ...]
    tag: str | None
    wider: "Place | None" = None

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


def hint_of_others(place: Place, section: type[Section], keys: Sequence[str]) -> str:
    """Return a hint about a field that only other sections of a place have; empty where none has it.

    Args:
      place: where the section stands.
      section: the one that was chosen.
      keys: the name of the field, in its parts.
    """
    tags = [tag for other in place.options if keys[-1] in other.model_fields for tag in place.tags(other)]
    if not tags:
        return ""
    parent = ".".join(["config", *keys[:-1]])
    hint = f"{parent} is {place.tags(section)[0]}, and only {' and '.join(tags)} has that field; choose it as well"
    return f"{hint}: --{parent}={tags[0]}"


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
