"""Writes the selected chains and their variants as a dataset folder. The same stages give the same bytes."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common import files
from coi_jax.common.schema import flatten
from coi_jax.common.storage import PathLike
from data_pipeline import variants
from data_pipeline.build import instruction_sources, llm_stages
from data_pipeline.build.asking.questions import prompt_identity
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import REJECTED, Row
from data_pipeline.build.pipeline import BuildResult
from data_pipeline.build.stages import working

SOURCE = "coi_jax.build"
PROVENANCE = "provenance"


def settings(config: BuildConfig) -> dict[str, Any]:
    """Return what tells a build from others, by dotted names: not how its endpoints are reached."""
    values = flatten(config.model_dump(mode="json", exclude={"store": True, "endpoint": True, "opinion": {"endpoint"}}))
    return values | {"endpoint": config.endpoint.identity, "opinion.endpoint": config.opinion.endpoint.identity}


def settings_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the build that wrote a manifest; none where another version of the project did."""
    try:
        return settings(BuildConfig.model_validate({"store": ""} | manifest["notes"]["config"]))
    except (KeyError, TypeError, pydantic.ValidationError):
        return {}


def manifest_notes(config: BuildConfig, built: BuildResult) -> dict[str, Any]:
    """Return the manifest's notes on a build: everything that its chains depend on."""
    return {
        "licences": [seed["licence"] for seed in built.tasks.read()],
        "config": config.model_dump(mode="json", exclude={"store"}),
        "sources": [Path(path).name for source in config.seeds.sources for path in instruction_sources.paths(source)],
        "prompts": {prompt: prompt_identity(prompt) for prompt in llm_stages.prompts()},
        "stages": {stage.name: stage.counts for stage in built.every},
        "identity": files.digest([stage.identity for stage in built.every]),
    }


def write(out: PathLike, config: BuildConfig, result: BuildResult, notes: dict[str, Any]) -> dict[str, Any]:
    """Write the dataset folder `out`; return its counts of chains, by split and length.

    Args:
      out: the dataset folder.
      config: of the build.
      result: its stages; the rejected rows of all are kept with the dataset.
      notes: for the manifest.
    """
    drafts = sorted((Draft.from_row(row) for row in result.selected.read()), key=lambda draft: (draft.length, draft.id))
    with DatasetWriter(out, SOURCE) as writer:
        for draft in drafts:
            writer.add(draft.split, draft.chain(SOURCE))
            writer.note(PROVENANCE, _provenance(draft))
        for split, chain in _all_variants(drafts, config, _annotations(result), writer):
            writer.add(split, chain)
        for stage in result.every:
            for row in stage.read_sorted(REJECTED):
                writer.reject(row["row"], row["reason"], stage=stage.name, raw=row.get("raw", []))
        licence = ", ".join(sorted(set(notes.pop("licences"))))
        writer.finish(licence, notes)
        return {split: dict(by) for split, by in writer.counts.items()}


def _provenance(draft: Draft) -> dict[str, Any]:
    row = draft.row()
    return {"id": draft.id} | {key: row[key] for key in ("instance", "verdicts", "opinion", "replies")}


def _annotations(result: BuildResult) -> dict[str, dict[str, Row]]:
    """Return what language models made of selected chains: for each variant its rows, by the ids of the chains."""
    stages = result.annotations
    fused = stages["fused"].read() if "fused" in stages else ()
    worked = (row for name, stage in stages.items() if name.startswith(working.STAGE) for row in stage.read())
    return {"fused": {row["id"]: row for row in fused}} | dict.fromkeys(working.VARIANTS, working.choose(worked))


def _all_variants(
    drafts: Sequence[Draft], config: BuildConfig, annotations: dict[str, dict[str, Row]], writer: DatasetWriter
) -> Iterator[tuple[str, Chain]]:
    """Yield the chains of all variants, each with its split."""
    groups: dict[tuple[str, int], list[Chain]] = collections.defaultdict(list)
    for draft in drafts:
        if draft.length > 1:
            groups[draft.split, draft.length].append(draft.chain(SOURCE))
    for kind in config.variants:
        for (split, _), chains in sorted(groups.items()):
            for chain in chains:
                made = _variant(kind, chain, chains, config.seed, annotations)
                if made is not None:
                    yield f"{split}_{kind}", made
                elif kind in variants.COMPUTED:
                    writer.reject(chain.row(), variants.NO_OTHER, stage="variants", raw=[])


def _variant(
    kind: str, chain: Chain, group: Sequence[Chain], seed: int, annotations: dict[str, dict[str, Row]]
) -> Chain | None:
    if kind in variants.COMPUTED:
        return variants.compute(kind, chain, group, seed)
    row = annotations[kind].get(chain.id)
    if row is None:
        return None
    return variants.fused(chain, row["instruction"]) if kind == "fused" else variants.worked(kind, chain, row)
