"""Run a build from end to end: its forecast, or its questions, its dataset folder and its report."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coi_jax.chains.dataset import check_replaceable, check_settings, read_manifest
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path, check_not_kept
from coi_jax.common.wording import count_of
from coi_jax.llm.budget import Budget, Prices, check_dollars
from data_pipeline.build import decisions
from data_pipeline.build.asking import ask_transform
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import OUT, StageRunner
from data_pipeline.build.forecast import Forecast, Line
from data_pipeline.build.pipeline import NO_PAIRS, Build, BuildResult, Payment, check_composed
from data_pipeline.build.review import chain_outcomes, model_quality, strategies
from data_pipeline.build.review.build_report import write_report
from data_pipeline.build.run_modes import run_directly, run_in_batches
from data_pipeline.build.writing import SOURCE, manifest_notes, settings, settings_of, write
from data_pipeline.text_tables import text_table

STAGES, REPORT = "stages", "report.html"  # of a work folder
RUNNER = "--runner=FnApiRunner"  # the DirectRunner's engine in this process; its other one would be downloaded


@dataclass(frozen=True)
class BuildJob:
    """A build and where it reads and writes.

    Attributes:
      config: of the build.
      out: the dataset folder to write.
      work: the folder of stages, spending and report.
      decisions_file: people's decisions; None takes the one in `work`.
      budget: US dollars, of all runs together; None is no limit.
      beam_flags: passed to Beam.
      overwrite: whether a dataset of another config is replaced.
    """

    config: BuildConfig
    out: str
    work: str
    decisions_file: str | None
    budget: float | None
    beam_flags: Sequence[str] = ()
    overwrite: bool = False

    @cached_property
    def runner(self) -> StageRunner:
        """Return what runs the stages."""
        return StageRunner(f"{self.work}/{STAGES}", [RUNNER, *self.beam_flags])

    @cached_property
    def decisions(self) -> Decisions:
        """Return people's decisions."""
        if self.decisions_file:
            return decisions.read(self.decisions_file, may_be_absent=False)
        return decisions.read(f"{self.work}/decisions.jsonl")

    @property
    def payment(self) -> Payment:
        """Return where spending is recorded, and its limit."""
        return Payment(f"{self.work}/spending", self.budget)

    def forecast(self) -> list[Line]:
        """Return what the build would ask and cost, stage by stage; nothing is asked."""
        check_dollars(self.budget)
        build = Build(self.config, self.runner, self.payment, self.decisions, offline=True)
        seeds, pairs = build.run_without_asking()
        if not pairs.counts[OUT]:
            kinds = ", ".join(sorted({row["category"] or "unknown" for row in seeds.read()}))
            note = f"note: no chain of several steps can come of it: {NO_PAIRS}, whose categories are {kinds}"
            print(note, file=sys.stderr)
        return Forecast(self.config, seeds, pairs).lines()

    def run(self, poll_seconds: float | None) -> str:
        """Write the dataset folder and the report; return a summary.

        Args:
          poll_seconds: the pause between polls of a batch, to ask through the Batch API; None asks directly.

        Raises:
          UserError: the folder holds something else, a question has no answer, the budget is reached, or no chain of
            several steps is left, which is said when all that was made is written.
        """
        check_dollars(self.budget)
        check_work(self.work, self.out)
        check_replaceable(self.out, SOURCE)  # now, and not when all questions have been asked and paid
        if not self.overwrite:
            check_settings(self.out, SOURCE, settings(self.config), settings_of)
        built = self._ask(poll_seconds)
        worked = strategies.rows(built)
        notes = manifest_notes(self.config, built) | ({"strategies": worked} if worked else {})
        write(self.out, self.config, built, notes)
        chain_outcomes.write(self.work, built)
        spent = Budget(self.payment.folder, None, Prices(0.0, 0.0), 1).total()
        write_report(f"{self.work}/{REPORT}", self.config, built, spent, self.decisions)
        check_composed(built, f"the single steps are in {self.out}, the report is {self.work}/{REPORT}")
        quality = model_quality.lines(model_quality.replies(built.every), model_quality.truth(built))
        replies = model_quality.reply_line(ask_transform.reply_counts())
        replies += model_quality.failure_line(ask_transform.failed_attempts())
        return "\n".join([summary(self.out, self.work, spent), *replies, *quality, *strategies.lines(worked)])

    def _ask(self, poll_seconds: float | None) -> BuildResult:
        if self.config.llm == "endpoint":
            self.config.endpoint.key()
            if poll_seconds is not None:
                return run_in_batches(self.config, self.runner, self.payment, self.decisions, poll_seconds)
        return run_directly(Build(self.config, self.runner, self.payment, self.decisions), self.budget)


def check_work(folder: str, out: PathLike) -> None:
    """Raise UserError where a work folder is that of something else, whose files would be replaced.

    Args:
      folder: that a build is about to write its stages and its report into.
      out: the dataset folder, which holds nothing but the dataset.
    """
    if as_path(folder, "--work") == as_path(out, "--out") or as_path(out) in as_path(folder).parents:
        raise UserError("--work", folder, f"is the dataset folder {out}, or inside of it; name another folder")
    check_not_kept(folder, "--work")
    foreign = [name for name in (REPORT, chain_outcomes.FILE) if (as_path(folder, "--work") / name).exists()]
    if foreign and not (as_path(folder, "--work") / STAGES).exists():
        raise UserError("--work", folder, f"holds a {foreign[0]} that no build has written; name another folder")


def summary(out: PathLike, work: str, spent: float) -> str:
    """Return a summary of a build, in a few lines.

    Args:
      out: the dataset folder.
      work: the work folder.
      spent: US dollars, of all runs.
    """
    manifest = read_manifest(out)
    counts = manifest["counts"].items()
    lines = text_table(
        ["split", "length", "chains"],
        [[split, length, count] for split, by_length in counts for length, count in by_length.items()],
    )
    lines.append(
        f"{count_of(sum(manifest['rejected'].values()), 'row')} rejected, each with its reason in {out}/rejected.jsonl"
    )
    lines.append(f"${spent:.4f} spent on it; the report: {work}/{REPORT}")
    return "\n".join(lines)
