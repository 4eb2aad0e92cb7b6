"""A trainer and an evaluator that do what a line of Python says, in a package that stands before the real one."""

from pathlib import Path

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import write_chains
from tests.helpers.paths import ROOT

FAKE = """
import sys, pathlib, json, time, signal
def main(argv):
    folder = pathlib.Path(argv[argv.index("--workdir") + 1])
    config = json.loads((folder / "config.json").read_text())
    def train(step, total=2):
        place = folder / "checkpoints" / str(step) / "position"
        place.mkdir(parents=True)
        (place / "metadata").write_text(json.dumps({"total_steps": total}))
    def score(checkpoint="2-abc"):
        for test in config["evaluation"]["tests"]:
            (folder / "eval" / test).mkdir(parents=True)
            results = {"examples": 9, "provenance": {"checkpoint": checkpoint, "available_examples": 9}}
            (folder / "eval" / test / "results.json").write_text(json.dumps(results))
    arm = config["arm"]
    exec(pathlib.Path(sys.argv[0]).with_suffix(".txt").read_text())
main(sys.argv[1:])
"""


def make_workplace(folder: Path) -> None:
    """Let `python -m coi_jax.train` in a folder run what `set_fakes` writes, on data like the quickstart's."""
    (folder / "coi_jax").mkdir()
    (folder / "coi_jax" / "__init__.py").write_text(f"__path__.append({str(ROOT / 'coi_jax')!r})")
    for name in ("train", "evaluate"):
        (folder / "coi_jax" / f"{name}.py").write_text(FAKE)
    for name in ("configs", "launch"):
        (folder / name).symlink_to(ROOT / name)
    steps = [(Step("Sort.", "a b"),) * length for length in range(1, 7)]
    chains = [Chain(str(len(each)), "procedural", "b a", join(["Sort."] * len(each)), each) for each in steps]
    splits = {"train": chains[:3], "test": chains}
    write_chains(folder / "data/quickstart", splits, source="procedural", licence="Apache-2.0")
    set_fakes(folder)


def set_fakes(folder: Path, train: str = "train(2)", evaluate: str = "score()") -> None:
    """Let the commands do what some lines of Python say."""
    (folder / "coi_jax" / "train.txt").write_text(train)
    (folder / "coi_jax" / "evaluate.txt").write_text(evaluate)
