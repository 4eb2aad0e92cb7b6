"""Read your copies of other benchmarks as test sets: SIFo, SeqEval, ComplexBench, IFEval.

  python -m data_pipeline.benchmarks --sifo sifo_datasets --ifeval input_data.jsonl --out data/benchmarks
  python -m coi_jax.evaluate --workdir runs/coi12 --dataset data/benchmarks --tasks sifo,ifeval

Takes their files as they are published, JSON or JSON lines, or folders of them. Rows that cannot be used go whole into
rejected.jsonl. SeqEval and ComplexBench have no references: their answers are for a judge.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import DatasetWriter, check_replaceable, read_manifest
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import as_path, list_files, open_input
from data_pipeline.json_array import read_array
from data_pipeline.text_tables import text_table

SOURCE = "other benchmarks"  # in the manifest
KINDS = (".json", ".jsonl")
START = 1024  # bytes of a file in which its first character is looked for
Row = Mapping[str, Any]


class NotUsable(ValueError):
    """A row that is no chain; the message is the reason that goes with it into rejected.jsonl."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark whose files are read.

    Attributes:
      name: of its option and of its test set, whose split has the same name.
      files: what the option names, for the help.
      read: returns the chain of a row of a file with this name and number, or raises NotUsable.
    """

    name: str
    files: str
    read: Callable[[Row, str, int], Chain]


def _text(row: Row, key: str) -> str:
    """Return a text that a row must have."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise NotUsable(f"{key!r} is no text")
    return value


def _answer(value: Any, key: str) -> str:
    """Return an answer as text; SIFo has numbers and lists among them."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise NotUsable(f"{key!r} is no text")


def read_sifo(row: Row, file: str, number: int) -> Chain:
    """Return the chain of a row of SIFo: `id, context?, instruction_1 …, answer_1 …`.

    Args:
      row: a JSON object.
      file: its name without the ending, which is the task.
      number: of the row in it.
    """
    steps = []
    for place in itertools.takewhile(lambda place: f"instruction_{place}" in row, itertools.count(1)):
        answer = _answer(row.get(f"answer_{place}"), f"answer_{place}")
        steps.append(Step(_text(row, f"instruction_{place}"), answer, task=file))
    if not steps:
        raise NotUsable("no key 'instruction_1'")
    context = _text(row, "context") if row.get("context") else ""
    instruction = join([step.instruction for step in steps])
    details = {"sifo_task": file}
    return Chain(_id("sifo", file, row.get("id", number)), "SIFo", context, instruction, tuple(steps), details=details)


def read_seqeval(row: Row, file: str, number: int) -> Chain:
    """Return a row of SeqEval, whose instruction holds several that are not told apart, as a chain of one step.

    Args:
      row: a JSON object.
      file: its name without the ending.
      number: of the row in it.
    """
    key = "seq_instruction" if "seq_instruction" in row else "instruction"
    return _unreferenced("SeqEval", _text(row, key), _id("seqeval", file, number), row, (key,))


def read_complexbench(row: Row, file: str, number: int) -> Chain:
    """Return a row of ComplexBench, in English where it has been translated, with its scoring questions for a judge.

    Args:
      row: a JSON object.
      file: its name without the ending.
      number: of the row in it.
    """
    if not isinstance(row.get("scoring_questions"), list):
        raise NotUsable("'scoring_questions' is no list")
    instruction = _text(row, "instruction_en" if row.get("instruction_en") else "instruction")
    id = _id("complexbench", file, row.get("main_id", number))
    return _unreferenced("ComplexBench", instruction, id, row, ("instruction", "instruction_en"))


def read_ifeval(row: Row, file: str, number: int) -> Chain:
    """Return a row of IFEval: `key, prompt, instruction_id_list, kwargs`.

    Args:
      row: a JSON object.
      file: its name without the ending.
      number: of the row in it.
    """
    prompt, ids, arguments = _text(row, "prompt"), row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments) or not ids:
        raise NotUsable("'instruction_id_list' and 'kwargs' are no lists of equal lengths")
    if not all(isinstance(each, dict) for each in arguments):
        raise NotUsable("'kwargs' are no objects")
    given = [{key: value for key, value in each.items() if value is not None} for each in arguments]
    _check_instructions(ids, given)
    details = {"instruction_id_list": ids, "kwargs": given}
    id = _id("ifeval", file, row.get("key", number))
    return Chain(id, "IFEval", "", prompt, (Step(prompt, None),), details=details)


def _check_instructions(ids: Sequence[Any], arguments: Sequence[Mapping[str, Any]]) -> None:
    """Raise NotUsable where an instruction could not be verified."""
    from coi_jax.evaluation.instruction_checks import argument_fault  # with the scorers, which --help does not need

    for id, given in zip(ids, arguments, strict=True):
        if fault := argument_fault(id, given):
            raise NotUsable(fault)


def _unreferenced(source: str, instruction: str, id: str, row: Row, shown: Sequence[str]) -> Chain:
    """Return an instruction without a reference, with all else that its row says."""
    details = {key: value for key, value in row.items() if key not in shown}
    return Chain(id, source, "", instruction, (Step(instruction, None),), details=details)


def _id(benchmark: str, file: str, name: Any) -> str:
    return f"{benchmark}/{file}#{name}"


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("sifo", "SIFo's folder sifo_datasets, or a file of it", read_sifo),
        Benchmark("seqeval", "seqEval.json of SeqIns", read_seqeval),
        Benchmark("complexbench", "data_final.json of ComplexBench", read_complexbench),
        Benchmark("ifeval", "input_data.jsonl of IFEval", read_ifeval),
    )
}


def read(benchmark: Benchmark, path: str, writer: DatasetWriter) -> None:
    """Add the rows of a benchmark to a dataset, and those that cannot be used to its rejected rows.

    Args:
      benchmark: an entry of `BENCHMARKS`.
      path: a file, or a folder of files.
      writer: of the dataset.

    Raises:
      UserError: there is no such file, it is no JSON, or none of its rows can be used.
    """
    seen: set[str] = set()
    reason = "it has none"
    for file in _files(path, benchmark.name):
        for number, row in enumerate(_rows(file, benchmark.name)):
            try:
                chain = _read_row(benchmark, row, Path(file).stem, number, seen)
            except NotUsable as error:
                reason = str(error)
                writer.reject(row, reason, file=Path(file).name, number=number)
            else:
                writer.add(benchmark.name, chain)
    if not seen:
        raise UserError(f"--{benchmark.name}", path, f"no row can be used ({reason}); name {benchmark.files}")


def _read_row(benchmark: Benchmark, row: Any, file: str, number: int, seen: set[str]) -> Chain:
    if not isinstance(row, dict):
        raise NotUsable("not a JSON object")
    chain = benchmark.read(row, file, number)
    if chain.id in seen:
        raise NotUsable(f"id {chain.id} occurs more than once")
    seen.add(chain.id)
    return chain


def _files(path: str, name: str) -> list[str]:
    place = as_path(path, f"--{name}")
    if not place.exists():
        raise UserError(f"--{name}", path, "no such file or folder; check the path")
    if not place.is_dir():
        return [str(place)]
    found = [str(place / file) for file in list_files(place) if Path(file).suffix in KINDS]
    if not found:
        raise UserError(f"--{name}", path, f"holds no {' or '.join(KINDS)}")
    return sorted(found)


def _rows(path: str, name: str) -> Iterator[Any]:
    """Yield the rows of a file: the elements of a JSON array, or JSON lines."""
    with open_input(path, f"--{name}") as file:
        start = file.read(START).removeprefix(b"\xef\xbb\xbf").lstrip()
    return read_array(path, f"--{name}") if start.startswith(b"[") else files.read_jsonl(path, f"--{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = cli.parser(__doc__)
    for benchmark in BENCHMARKS.values():
        parser.add_argument(f"--{benchmark.name}", metavar="PATH", help=benchmark.files)
    parser.add_argument("--out", required=True, metavar="DIR", help="dataset folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of other rows")
    arguments = parser.parse_args(argv)
    given = {name: path for name in BENCHMARKS if (path := getattr(arguments, name))}
    if not given:
        parser.error(f"name a copy of a benchmark: {', '.join(f'--{name}' for name in BENCHMARKS)}")
    check_replaceable(arguments.out, SOURCE)
    with DatasetWriter(arguments.out, SOURCE, overwrite=arguments.overwrite) as writer:
        for name, path in given.items():
            read(BENCHMARKS[name], path, writer)
        writer.finish("each benchmark's own", {"read_from": given})
    manifest = read_manifest(arguments.out)
    rows = [[split, length, count] for split, by in manifest["counts"].items() for length, count in by.items()]
    print("\n".join(text_table(["test set", "length", "chains"], rows)))
    for reason, count in manifest["rejected"].items():
        print(f"{count} rejected: {reason}")
    return 0


def command() -> int:
    """Run the command `coi-benchmarks`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
