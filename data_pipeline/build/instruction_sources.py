"""Reads single instructions from where they are: Super-NaturalInstructions, files of rows, datasets, operations.

A reader yields seeds and refused rows. Of a task's instances those with the lowest hash are taken, so that the choice
depends on nothing else; rows that turn out to be unusable on the way are refused, complete and with their reason.
"""

import dataclasses
import fnmatch
import heapq
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_manifest, split_path
from coi_jax.common import files
from coi_jax.common.errors import UserError, shorten
from coi_jax.common.json_reader import JsonError, NotJson, parse_json
from coi_jax.common.storage import as_path
from data_pipeline.build import row_files, row_layouts, rules
from data_pipeline.build.build_config import EXAMPLES, SeedsConfig, SourceConfig
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.procedural import catalogue
from data_pipeline.procedural.operation import Operation
from data_pipeline.procedural.values import ValueType

CLOSED_OUTPUTS = 12  # a task with no more different outputs may be a closed question …
CLOSED_REPEATS = 4  # … if each of them comes as often as this in the mean
NOTHING = "nothing"  # the kind of an empty input, which no task gives
NAMED_KEYS = 20  # of rows that cannot be used, in an error
ITEMS = (3, 6)  # of an operation's inputs
MAX_LEVEL = 3  # of operations: all of them
ROWS_TRIED = 100  # whose keys may be unknown before a row with known ones
UNKNOWN_KEYS = "a row with the keys of no layout that is known"


@dataclass(frozen=True)
class Refused:
    """A row that is not taken, and why."""

    reason: str
    row: Any


@dataclass(frozen=True)
class Piece:
    """One row of a task whose rows are spread over a file: the seed that the row describes, and its one instance."""

    seed: Seed
    instance: Instance


def paths(source: SourceConfig) -> list[str]:
    """Return the files of a source, in order.

    Raises:
      UserError: there are none.
    """
    if source.kind == "procedural":
        catalogue.select(source.path.split(","), MAX_LEVEL, "seeds.sources")
        return [source.path]
    if source.kind == "dataset":
        return [str(split_path(source.path, source.split, "seeds.sources"))]
    if source.kind in EXAMPLES:
        return row_files.find_files(source.path)
    path = as_path(source.path, "seeds.sources")
    names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    found = [str(path / name) for name in names if fnmatch.fnmatchcase(name, "task*.json")]
    if not found and path.exists() and not path.is_dir():
        return [str(path)]
    if not found:
        raise UserError("seeds.sources", path, "holds no task*.json; check the path")
    return found


def read_super_ni(path: str, config: SeedsConfig, seed: int) -> Iterator[Seed | Refused]:
    """Read the task of a file of Super-NaturalInstructions, whose fields are sometimes lists and sometimes not.

    Args:
      path: of the task file.
      config: which languages, lengths and how many instances are taken.
      seed: of the choice of instances.
    """
    name = Path(path).stem
    try:
        task = parse_json(files.read_text(path, "seeds.sources"))
    except NotJson as error:
        yield Refused(f"not a task of Super-NaturalInstructions: {error}", {"file": path})
        return
    except JsonError as error:
        raise UserError("seeds.sources", path, str(error)) from None
    rows = task.get("Instances") if isinstance(task, dict) else None
    if not isinstance(rows, list):
        yield Refused("not a task of Super-NaturalInstructions: it has no list of Instances", {"file": path})
        return
    definition = " ".join(_texts(task.get("Definition"))).strip()
    if not definition:
        yield Refused("a task without a Definition", {"file": path})
        return
    languages = {text for key in ("Input", "Output", "Instruction") for text in _texts(task.get(f"{key}_language"))}
    if config.languages and not (languages and languages <= set(config.languages)):
        yield Refused("another language", {"task": name, "languages": sorted(languages)})
        return
    found = Seed(
        id=name,
        source="super_ni",
        licence=", ".join(_texts(task.get("Instance License"))) or "Unknown",
        group=next(iter(_texts(task.get("Source"))), name),
        split="",
        category=rules.category_of(next(iter(_texts(task.get("Categories"))), "")) or None,
        definition=definition,
        instruction="",
        takes=(),
        gives="",
        closed=is_closed(output for row in rows if isinstance(row, dict) for output in _texts(row.get("output"))[:1]),
        instances=(),
    )
    yield from with_instances(found, ((row, _instance(name, row)) for row in _by_hash(rows, seed, name)), config)


def _texts(value: Any) -> list[str]:
    """Return a field that is a text or a list of texts, as a list."""
    given = value if isinstance(value, list) else [value]
    return [text.strip() for text in given if isinstance(text, str) and text.strip()]


def _instance(task: str, row: Any) -> Instance | str:
    """Return the instance of a row, or what is wrong with it."""
    if not isinstance(row, dict) or not isinstance(row.get("input"), str):
        return "an instance without an input"
    outputs = _texts(row.get("output"))
    if not outputs:
        return "an instance without an output"
    return Instance(str(row.get("id") or f"{task}-{files.digest(row)[:12]}"), row["input"].strip(), outputs[0])


def _by_hash(rows: Iterable[Any], seed: int, name: str) -> Iterator[Any]:
    """Yield the rows in an order that follows from their content and the seed alone."""
    keyed = [(files.digest([seed, name, row]), number, row) for number, row in enumerate(rows)]
    heapq.heapify(keyed)
    while keyed:
        yield heapq.heappop(keyed)[2]


def with_instances(
    seed: Seed, rows: Iterable[tuple[Any, Instance | str]], config: SeedsConfig
) -> Iterator[Seed | Refused]:
    """Yield the seed with the first usable instances, after the rows that were refused on the way.

    Args:
      seed: the task.
      rows: pairs of a row and its instance, or of a row and the reason why it has none.
      config: how many instances of what length are taken.
    """
    taken: dict[str, Instance] = {}
    ids: set[str] = set()
    for row, instance in rows:
        if len(taken) == config.instances:
            break
        reason = instance if isinstance(instance, str) else _fault(instance, taken, config)
        if reason:
            yield Refused(reason, {"task": seed.id, "instance": row})
        elif isinstance(instance, Instance):
            taken[instance.input] = _with_own_id(instance, ids)
            ids.add(taken[instance.input].id)
    if not taken:
        yield Refused("a task without a usable instance", {"task": seed.id})
        return
    takes = seed.takes if any(taken) else (NOTHING,)
    yield dataclasses.replace(seed, takes=takes, instances=tuple(taken.values()))


def _with_own_id(instance: Instance, ids: Set[str]) -> Instance:
    """Return an instance with an id of its own in its task, also where its source gives several the same."""
    if instance.id not in ids:
        return instance
    return dataclasses.replace(instance, id=f"{instance.id}-{files.digest(instance.input)[:12]}")


def _fault(instance: Instance, taken: Mapping[str, Instance], config: SeedsConfig) -> str:
    if instance.input in taken:
        return "an input that the task has twice"
    longest = max(len(instance.input.split()), len(instance.output.split()))
    return "longer than longest_words" if longest > config.longest_words else ""


def is_closed(outputs: Iterable[str]) -> bool:
    """Return whether outputs are a few texts again and again."""
    seen: set[str] = set()
    count = 0
    for output in outputs:
        count += 1
        seen.add(output.casefold())
        if len(seen) > CLOSED_OUTPUTS:
            return False
    return count >= CLOSED_REPEATS * len(seen)


def read_examples(path: str, columns: Mapping[str, str]) -> Iterator[Piece | Refused]:
    """Read a file whose rows are examples, in any layout of `row_layouts`.

    Args:
      path: of the file.
      columns: the names of its columns, where its layout is not one that is recognized.

    Raises:
      UserError: there are no rows, or none is of a layout that is known.
    """
    layout, row, number = None, None, None
    for number, row in enumerate(row_files.read_rows(path)):
        layout = layout or row_layouts.recognize(row, path, columns)
        if layout is None and number == ROWS_TRIED:
            break
        found = layout.read(row) if layout and isinstance(row, dict) else UNKNOWN_KEYS
        if isinstance(found, str):
            yield Refused(found, row)
        elif layout:
            for example in found:
                yield _piece(layout.name, "", *example, None)
    if number is None:
        raise UserError("seeds.sources", path, "has no rows; name a file that has some")
    if layout is None:
        raise row_layouts.unknown_layout(row, path)


def read_dataset(path: str, folder: str) -> Iterator[Piece | Refused]:
    """Read the chains of one step in a file of a dataset folder."""
    licence = read_manifest(folder)["licence"]
    for row in files.read_jsonl(path, "seeds.sources"):
        chain = Chain.from_row(row)
        if chain.length == 1:
            step = chain.steps[0]
            if step.output is None or not step.output.strip():
                yield Refused("a chain without an output", row)
            else:
                yield _piece(chain.source, licence, step.instruction, chain.input, step.output, step.category)


def require_pieces(rows: Iterable[Piece | Refused], path: str) -> Iterator[Piece | Refused]:
    """Yield what a file gives.

    Args:
      rows: read from it.
      path: of the file.

    Raises:
      UserError: at the end of a file of which no row could be used; it says why, and the keys that its rows have.
    """
    keys: dict[str, None] = {}
    is_empty, reason = True, None
    for row in rows:
        if isinstance(row, Piece):
            is_empty = False
        else:
            reason = row.reason
            if len(keys) < NAMED_KEYS and isinstance(row.row, dict):
                keys |= dict.fromkeys(row.row)
        yield row
    if is_empty and reason is None:  # chains of several steps, or a task without instances
        hint = "has no single instruction: no chain of one step, no instance of a task; name another split or dataset"
        raise UserError("seeds.sources", path, hint)
    if is_empty:
        found = f", which have the keys {shorten(', '.join(map(str, keys)), 200)}" if keys else ""
        raise UserError("seeds.sources", path, f"no row can be used (the last: {reason}); correct the rows{found}")


def _piece(source: str, licence: str, instruction: str, given: str, output: str, category: str | None) -> Piece:
    definition = instruction.strip()
    name = f"{source}-{files.digest(definition)[:12]}"
    seed = Seed(
        name,
        source,
        licence or "Unknown",
        name,
        "",
        category and rules.category_of(category),
        definition,
        "",
        (),
        "",
        False,
        (),
    )
    instance = Instance(f"{name}-{files.digest([given, output])[:12]}", given.strip(), output.strip())
    return Piece(seed, instance)


def merge(pieces: Iterable[Piece], config: SeedsConfig, seed: int) -> Iterator[Seed | Refused]:
    """Yield the seed of a task's pieces.

    Args:
      pieces: of one task.
      config: how many instances of what length are taken.
      seed: of the choice of instances.
    """
    given = sorted(pieces, key=lambda piece: files.digest([seed, piece.instance.id]))
    found = dataclasses.replace(given[0].seed, closed=is_closed(piece.instance.output for piece in given))
    yield from with_instances(found, ((dataclasses.asdict(piece.instance), piece.instance) for piece in given), config)


def read_procedural(names: str, config: SeedsConfig, seed: int) -> Iterator[Seed | Refused]:
    """Yield operations of the procedural benchmark as tasks; those whose instruction has parameters are left out.

    Args:
      names: of families or operations, with commas between.
      config: how many instances are taken.
      seed: of the inputs.
    """
    for operation in catalogue.select(names.split(","), MAX_LEVEL):
        if not operation.parameters:
            drawn = _drawn(operation, Random(f"{seed} {operation.name}"), operation.source)
            yield from with_instances(_operation(operation), ((None, instance) for instance in drawn), config)


def _operation(operation: Operation) -> Seed:
    kind = operation.source.name
    words = f"In this task you are given {kind} as a text. {operation.phrasings[0]} Write the result alone, as it is."
    return Seed(
        id=operation.name,
        source="procedural",
        licence="Apache-2.0",
        group=operation.name,
        split="",
        category=operation.category,
        definition=words,
        instruction="",
        takes=(kind,),
        gives=rules.CLOSED if operation.closed else operation.result.name,
        closed=operation.closed,
        instances=(),
    )


def _drawn(operation: Operation, random: Random, source: ValueType, trials: int = 400) -> Iterator[Instance]:
    """Yield instances of an operation, from values that it makes sense for."""
    for number in range(trials):
        value = source.draw(random, random.randint(*ITEMS))
        result = operation.apply(value, {})
        if result is not None:
            yield Instance(f"{operation.name}-{number:03d}", source.text(value), operation.result.text(result))
