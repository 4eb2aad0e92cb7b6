"""Generate the reference of config fields from the pydantic models and the comments beside their fields."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from coi_jax.common.schema import Section
from coi_jax.config import loading, validation
from coi_jax.config.run import RunConfig, load_config
from data_pipeline.build.build_config import BuildConfig

RUN_EXAMPLES = ("configs/quickstart.py", "configs/mistral_7b.py:lora")
BUILD_EXAMPLES = ("configs/build/procedural.py", "configs/build/super_ni.py")

Json = dict[str, Any]
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minItems": "at least {} of them",
}
TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "`None`",
    "object": "mapping",
}


def run_fields() -> str:
    """Return the tables of the fields of a run."""
    examples = {path: load_config(path, {}).model_dump(mode="json") for path in RUN_EXAMPLES}
    return _document(RunConfig, examples)


def build_fields() -> str:
    """Return the tables of the fields of a build."""
    values = {path: validation.validate(BuildConfig, loading.read(path)) for path in BUILD_EXAMPLES}
    examples = {path: config.model_dump(mode="json") for path, config in values.items()}
    return _document(BuildConfig, examples)


def _document(root: type[Section], examples: Mapping[str, Json]) -> str:
    schema = root.model_json_schema()
    shown = {path.rsplit("/", 1)[-1]: values for path, values in examples.items()}
    parts = sections(schema, root.__name__)
    return "\n".join(_section(prefix, section_classes()[name], fields, shown) for prefix, name, fields in parts)


def section_classes() -> dict[str, type[Section]]:
    """Return every section of every config, by the name of its class."""
    found, waiting = dict[str, type[Section]](), Section.__subclasses__()
    while waiting:
        section = waiting.pop()
        found[section.__name__] = section
        waiting += section.__subclasses__()
    return found


def sections(schema: Json, name: str, prefix: str = "") -> Iterator[tuple[str, str, dict[str, Json]]]:
    """Yield (dotted prefix, class name, fields that are not sections) for a section and those inside it.

    Args:
      schema: JSON schema of the whole config.
      name: class of the section.
      prefix: dotted name of the section, with a dot at its end; empty for the whole config.
    """
    properties = (schema if not prefix else schema["$defs"][name])["properties"]
    inner = {field: references(value) for field, value in properties.items()}
    yield prefix, name, {field: value for field, value in properties.items() if not inner[field]}
    for field, classes in inner.items():
        for inner_class in classes:
            yield from sections(schema, inner_class, f"{prefix}{field}.")


def references(value: Json) -> list[str]:
    """Return the classes of sections that a field may hold, in order; none for a plain value."""
    if "$ref" in value:
        return [value["$ref"].rsplit("/", 1)[-1]]
    if value.get("type") == "array":
        return references(value["items"]) if isinstance(value.get("items"), dict) else []
    return [name for choice in _choices(value) for name in references(choice)]


def _choices(value: Json) -> list[Json]:
    return [*value.get("anyOf", []), *value.get("oneOf", [])]


def _section(prefix: str, section: type[Section], properties: Mapping[str, Json], examples: Mapping[str, Json]) -> str:
    title = f"`{prefix.rstrip('.')}`" if prefix else "Fields of the config itself"
    about = inspect.cleandoc(section.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    notes = comments(section)
    lines = [f"### {title}: {section.__name__}\n" if prefix else f"### {title}\n", f"{about}\n"]
    lines += [f"| field | type | meaning | {' | '.join(f'`{name}`' for name in examples)} |"]
    lines += ["|" + "---|" * (3 + len(examples))]
    for field, value in properties.items():
        shown = [_example(values, f"{prefix}{field}", properties, section) for values in examples.values()]
        cells = [f"`{prefix}{field}`", describe_type(value), notes.get(field, ""), *shown]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _example(value: Any, name: str, properties: Mapping[str, Json], section: type[Section]) -> str:
    """Return the value of a dotted field; empty where the config has another kind of section in its place."""
    *path, field = name.split(".")
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
        value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, dict) or value.keys() != section.model_fields.keys():
        return ""
    tags = {tag: schema["const"] for tag, schema in properties.items() if "const" in schema}
    return f"`{value[field]!r}`" if tags.items() <= value.items() else ""


def describe_type(value: Json) -> str:
    """Return the type and bounds of a field in words."""
    if choices := _choices(value):
        return " or ".join(describe_type(choice) for choice in choices)
    if "const" in value:
        return f"`{value['const']!r}`"
    if "enum" in value:
        return ", ".join(f"`{choice!r}`" for choice in value["enum"])
    if value.get("type") == "array":
        kind = "list of " + describe_type(value["items"]) if isinstance(value.get("items"), dict) else "list"
    else:
        kind = TYPES.get(value.get("type", ""), "any")
    limits = [text.format(value[key]) for key, text in LIMITS.items() if key in value]
    return ", ".join([kind, *limits])


def comments(section: type[Section]) -> dict[str, str]:
    """Return the comment beside or above each field of a section, in its source."""
    source = textwrap.dedent(inspect.getsource(section))
    by_line = _comments_by_line(source)
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = _comment_of(node, by_line)
    return found


def _comments_by_line(source: str) -> dict[int, tuple[str, bool]]:
    """Return the comment of each line, and whether it has a line of its own."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: (token.string.lstrip("# ").strip(), token.line.lstrip().startswith("#"))
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _comment_of(node: ast.AnnAssign, by_line: Mapping[int, tuple[str, bool]]) -> str:
    above, line = list[str](), node.lineno - 1
    while line in by_line and by_line[line][1]:
        above.insert(0, by_line[line][0])
        line -= 1
    beside = [by_line[number][0] for number in range(node.lineno, (node.end_lineno or 0) + 1) if number in by_line]
    return " ".join(above + beside)
