"""Whole builds, against a server that fails in 30% of all attempts."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from coi_jax.chains.dataset import read_manifest
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock
from coi_jax.llm.budget import Budget, Prices
from coi_jax.llm.reply_store import SqliteStore
from data_pipeline.build.engine.stage_runner import read_rows
from tests.helpers import super_ni_tasks
from tests.helpers.builds import contents, endpoint, flags, run, started
from tests.helpers.llm_clients import KEY
from tests.helpers.llm_server import Running, rates, running
from tests.helpers.super_ni_tasks import INJECTION

pytestmark = pytest.mark.xdist_group("builds")  # its fixtures take long: one worker makes them

KILLS = 6  # `make soak` has more
ORDERS = INJECTION.split(".")[0]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return super_ni_tasks.write(tmp_path_factory.mktemp("tasks") / "super_ni")


@pytest.fixture(scope="module")
def built(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nothing interrupted; its dataset folder."""
    out = tmp_path_factory.mktemp("whole") / "built"
    with running(brain="reader", rates=rates(0.3)) as server:
        assert run(flags(out, tasks, **endpoint(server.url))) == 0
    return out


def steps(out: Path, split: str) -> set[int]:
    return {len(row["steps"]) for row in files.read_jsonl(out / f"{split}.jsonl")}


def spent(out: Path) -> float:
    """US dollars."""
    return Budget(f"{out}.work/spending", None, Prices(0.0, 0.0), 1).total()


def asked_keys(log: Path) -> list[str]:
    return [row["key"] for row in files.read_jsonl(log)]


def test_chains_of_all_lengths_and_variants_come_out(built: Path) -> None:
    assert steps(built, "train") == {1, 2, 3}
    assert {1, 2} <= steps(built, "test")
    for variant in ("fused", "shuffled"):
        assert steps(built, f"train_{variant}") >= {2, 3}
    assert steps(built, "train_irrelevant") >= {2}
    assert steps(built, "train_final") == {1}


def test_every_candidate_is_accounted_for(built: Path) -> None:
    stages = read_manifest(built)["notes"]["stages"]
    for length in (2, 3):
        candidates = stages["pairs" if length == 2 else f"joins-{length}"]["out"]
        checks, answers = stages[f"checks-{length}"], stages[f"answers-{length}"]
        assert candidates == checks["out"] + checks["rejected"]
        assert checks["out"] == answers["out"] + answers["rejected"]
    opinions = stages["opinions"]
    assert sum(stages[f"answers-{n}"]["out"] for n in (2, 3)) == opinions["out"] + opinions["rejected"]
    rejected = list(files.read_jsonl(built / "rejected.jsonl"))
    assert len(rejected) == sum(read_manifest(built)["rejected"].values())
    assert all(row["reason"] and row["stage"] for row in rejected)
    unusable = [row for row in rejected if row["reason"].startswith("not of the wanted form")]
    assert unusable
    assert all(row["raw"] for row in unusable)


def test_provenance_leads_from_every_chain_to_its_seed_and_its_replies(built: Path) -> None:
    store = SqliteStore(built.parent / "replies.sqlite")
    provenance = {row["id"]: row for row in files.read_jsonl(built / "provenance.jsonl")}
    for split in ("train", "test"):
        for chain in files.read_jsonl(built / f"{split}.jsonl"):
            row = provenance[chain["id"]]
            assert row["instance"]
            assert len(row["verdicts"]) == len(chain["steps"]) - 1
            assert len(chain["steps"]) == 1 or row["opinion"]["score"] >= 4
            assert all(verdict["reason"] for verdict in row["verdicts"])
            assert all(store.get(key) for key in row["replies"])


def test_nothing_crosses_from_training_to_tests(built: Path) -> None:
    tasks = {
        split: {step["task"] for row in files.read_jsonl(built / f"{split}.jsonl") for step in row["steps"]}
        for split in ("train", "test")
    }
    assert tasks["train"]
    assert tasks["test"]
    assert not tasks["train"] & tasks["test"]
    inputs = {split: {row["input"] for row in files.read_jsonl(built / f"{split}.jsonl")} for split in tasks}
    assert not inputs["train"] & inputs["test"]


def test_another_folder_gets_the_same_bytes_and_nothing_is_asked(tasks: Path, built: Path, tmp_path: Path) -> None:
    with running(brain="reader") as server:
        store = {"store": str(built.parent / "replies.sqlite")}
        assert run(flags(tmp_path / "built", tasks, **endpoint(server.url) | store)) == 0
        assert server.counts().get("requests", 0) == 0
    assert without_url(contents(tmp_path / "built")) == without_url(contents(built))


def test_a_damaged_stage_is_named_and_made_again_without_paying_twice(tasks: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(f"{built}.work", tmp_path / "built.work")
    store = {"store": str(built.parent / "replies.sqlite")}
    with running(brain="reader") as server:
        argv = flags(tmp_path / "built", tasks, **endpoint(server.url) | store)
        (usage,) = (tmp_path / "built.work" / "stages").glob("answers-3-*/usage-*.jsonl")
        usage.write_text(usage.read_text(encoding="utf-8") * 2, encoding="utf-8")
        with pytest.raises(UserError, match=rf"work folder: {usage}: was changed since it was written; remove"):
            run(argv)
        assert not (tmp_path / "built").exists()
        shutil.rmtree(usage.parent)
        assert run(argv) == 0
        assert server.counts().get("requests", 0) == 0
    assert spent(tmp_path / "built") == pytest.approx(spent(built))
    assert without_url(contents(tmp_path / "built")) == without_url(contents(built))


def without_url(found: dict[str, bytes]) -> dict[str, object]:
    """A dataset's files, without where the server was."""
    manifest = json.loads(found["manifest.json"])
    config = manifest["notes"]["config"]
    for section in (config, config["opinion"]):
        del section["endpoint"]["base_url"]
    return {**found, "manifest.json": manifest}


def test_kill_9_at_random_moments_changes_no_byte_and_repeats_no_completed_call(
    tasks: Path, built: Path, tmp_path: Path
) -> None:
    chance, log = random.Random(0), tmp_path / "log"
    marks: list[tuple[int, set[str]]] = []  # after each kill: requests so far, and replies that are stored
    with running(brain="reader", rates=rates(0.3), delay=0.05, log=str(log)) as server:
        argv = flags(tmp_path / "built", tasks, **endpoint(server.url))
        while len(marks) < KILLS:
            process = started(argv)
            wait_for_more(server, chance.randint(1, 6))
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.join()
            assert process.exitcode == -9, "it was whole before it was killed so often"
            marks.append((len(asked_keys(log)), set(SqliteStore(tmp_path / "replies.sqlite"))))
        assert run(argv) == 0
    keys = asked_keys(log)
    # Of each killed process the calls in flight count with the most that they may cost, and not all that it had leased.
    assert spent(tmp_path / "built") < spent(built) + 0.02 * KILLS
    assert marks[0][1] < marks[-1][1]
    for before, stored in marks:
        assert not stored & set(keys[before:])
    assert without_url(contents(tmp_path / "built")) == without_url(contents(built))


def wait_for_more(server: Running, number: int) -> None:
    """Returns when so many more requests have come, or none for some seconds."""
    wanted, end = server.counts().get("requests", 0) + number, time.monotonic() + 5
    while server.counts().get("requests", 0) < wanted and time.monotonic() < end:
        time.sleep(0.01)


def test_what_people_decided_is_applied(tasks: Path, built: Path, tmp_path: Path) -> None:
    chains = [row for row in files.read_jsonl(built / "train.jsonl") if len(row["steps"]) == 2]
    gone, changed = chains[0]["id"], chains[1]
    steps = [[step["instruction"], f"edited {k}"] for k, step in enumerate(changed["steps"])]
    decisions = tmp_path / "decisions.jsonl"
    lines = [{"id": gone, "decision": "reject"}, {"id": changed["id"], "decision": "edit", "steps": steps}]
    decisions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with running(brain="reader") as server:
        store = {"store": str(built.parent / "replies.sqlite")}
        shutil.copytree(f"{built}.work", tmp_path / "work")
        more = (f"--work={tmp_path}/work", f"--decisions={decisions}")
        assert run(flags(tmp_path / "built", tasks, *more, **endpoint(server.url) | store)) == 0
    left = {row["id"]: row for row in files.read_jsonl(tmp_path / "built" / "train.jsonl")}
    assert gone not in left
    assert [step["output"] for step in left[changed["id"]]["steps"]] == ["edited 0", "edited 1"]
    rejected = [row for row in files.read_jsonl(tmp_path / "built" / "rejected.jsonl") if row["stage"] == "selection"]
    assert [row["reason"] for row in rejected] == ["rejected by a person"]


def test_the_key_is_in_no_file(built: Path) -> None:
    held = {path: path.read_bytes() for path in built.parent.rglob("*") if path.is_file()}
    assert len(held) > 50
    assert not [path for path, data in held.items() if KEY.encode() in data]


def test_orders_in_the_data_reach_the_model_fenced_and_change_nothing_else(built: Path) -> None:
    rows = [
        row
        for split in ("train", "test")
        for row in files.read_jsonl(built / f"{split}.jsonl")
        if row["input"].startswith(INJECTION)
    ]
    assert rows
    asked = [row for row in read_rows(f"{built}.work/stages/checks-2-*/*-*.jsonl") if ORDERS in json.dumps(row)]
    assert asked
    assert not [step for row in rows for step in row["steps"] if step["output"] == "HACKED"]


def test_a_budget_stops_the_build_cleanly_and_a_larger_one_goes_on(tasks: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "built"
    with running(brain="reader", rates=rates(0.3)) as server:
        argv = flags(out, tasks, **endpoint(server.url))
        half = spent(built) / 2
        with pytest.raises(UserError, match=r"budget.*raise it and run the same command again"):
            run([*argv, f"--budget={half}"])
        assert half / 3 < spent(out) <= half
        assert not out.exists()
        assert run([*argv, "--budget=100"]) == 0
    assert without_url(contents(out)) == without_url(contents(built))


def test_batches_build_the_same(tasks: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "built"
    with running(brain="reader") as server:
        small = {"joins.lengths": "()", "variants": "()"}
        assert run(flags(out, tasks, "--batch", "--poll=0.01", **endpoint(server.url) | small)) == 0
        batched = server.counts()["requests"]
        other = flags(tmp_path / "direct", tasks, **endpoint(server.url) | small | {"store": str(tmp_path / "other")})
        assert run(other) == 0
        assert server.counts()["requests"] == 2 * batched
    assert contents(out)["train.jsonl"] == contents(tmp_path / "direct")["train.jsonl"]


def test_a_dry_run_asks_nothing_and_its_forecast_holds(
    tasks: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*flags(tmp_path / "built", tasks), "--dry_run", "--json"]) == 0  # no endpoint is there to be asked
    forecast = {line["stage"]: line for line in json.loads(capsys.readouterr().out)}
    about, most = (sum(line[key] for line in forecast.values()) for key in ("usd", "most_usd"))
    used = [read_usage(built, name) for name in forecast]
    prices = Prices(0.15, 0.6)  # of the config
    assert about / 4 < sum(prices.of_tokens(*tokens) for _, *tokens in used) < most
    for (calls, *_), line in zip(used, forecast.values(), strict=True):
        assert line["calls"] / 4 < calls < 2 * line["most_calls"]  # some replies were repaired


def read_usage(out: Path, stage: str) -> tuple[int, int, int]:
    """Calls and tokens of a stage."""
    (usage,) = read_rows(f"{out}.work/stages/{stage}-*/usage-*.jsonl")
    return usage["calls"], usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("flag", ["--dryrun", "--budgett=5", "--runer=FlinkRunner"])
def test_a_misspelt_flag_starts_no_build(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UserError, match=f"flag: {flag.partition('=')[0]}: .*--"):
        run(flags(tmp_path / "built", None, flag))
    assert not list(tmp_path.iterdir())


def test_what_a_worker_finds_wrong_with_the_input_is_one_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^seeds\.sources: nope: unknown"):
        run(flags(tmp_path / "built", None, "--source=procedural:nope"))
    (tmp_path / "rows.json").write_text('[{"instruction": "cut', encoding="utf-8")
    argv = flags(tmp_path / "built", None, f"--source=alpaca:{tmp_path}/rows.json", "--llm=endpoint")
    with pytest.raises(UserError, match=r"rows\.json"):
        run(argv)
    assert not (tmp_path / "built").exists()


def test_a_file_of_decisions_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^decisions: .*nowhere\.jsonl: no such file; check the path"):
        run(flags(tmp_path / "built", None, f"--decisions={tmp_path}/nowhere.jsonl"))
    assert not (tmp_path / "built").exists()


def test_a_folder_that_cannot_be_made_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^out: /proc/none\.work: cannot be written"):
        run(flags(Path("/proc/none"), None, store=str(tmp_path / "replies.sqlite")))
    with pytest.raises(UserError, match=r"^work: /proc/none: cannot be written"):
        run(flags(tmp_path / "built", None, "--work=/proc/none"))
    assert not list(tmp_path.iterdir())


def test_an_endpoint_without_a_key_or_a_model_is_named(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipeline.build import __main__ as build

    argv = flags(tmp_path / "built", tasks)
    monkeypatch.delenv("COI_LLM_MODEL", raising=False)
    with pytest.raises(UserError, match=r"endpoint\.model.*COI_LLM_MODEL"):
        build.main(argv)
    monkeypatch.setenv("COI_LLM_MODEL", "m")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        build.main(argv)


def test_the_real_tasks_make_chains(super_ni_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "built"
    with running(brain="reader", rates=rates(0.3)) as server:
        more = {"pairs.tasks_per_categories": 6, "pairs.instances_per_tasks": 2, "variants": "()"}
        assert run(flags(out, super_ni_folder, **endpoint(server.url) | more)) == 0
    assert steps(out, "train") == {1, 2, 3}


@pytest.mark.parametrize("more", [(), ("--dry_run",)], ids=["build", "forecast"])
def test_two_builds_are_not_at_work_in_one_folder(tmp_path: Path, more: tuple[str, ...]) -> None:
    in_use = pytest.raises(UserError, match=rf"^out: .*out\.work: is in use by process {os.getpid()} since ")
    with folder_lock(tmp_path / "out.work", "work"), in_use:
        run(flags(tmp_path / "out", None, *more))
    assert not list(tmp_path.iterdir())
