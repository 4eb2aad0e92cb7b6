"""The page on which a person fills in a table of ballots, behind a real server and in a real browser."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from coi_jax import judge
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.local_page import make_local_server
from coi_jax.judging.answer_pairs import AnswerPair
from coi_jax.judging.ballot_page import BallotSession, application
from coi_jax.judging.ballots import read_choices, write_ballots
from tests.helpers import browsers
from tests.helpers.browsers import text, until
from tests.helpers.file_limits import largest_file
from tests.helpers.paths import CONFIGS

HOSTILE = "</script><script>document.title = 'HACKED'</script><b>bold</b>"
RUNS = {"a": "runs/secret_a", "b": "runs/secret_b"}
PAIRS = [
    AnswerPair(f"c{k}", f"Do {k}. {HOSTILE}", "=input", "", f"answer of A to {k}\nin two lines", f"answer of B to {k}")
    for k in range(4)
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_ballots(PAIRS, tmp_path / "ballots.csv", 0, RUNS)
    return tmp_path / "ballots.csv"


@pytest.fixture
def session(table: Path) -> BallotSession:
    return BallotSession(table)


@pytest.fixture
def address(session: BallotSession) -> Iterator[str]:
    server = make_local_server(application(session), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def choose(session: BallotSession, place: int, choice: str) -> None:
    session.choose({"id": session.pair(place)["id"], "choice": choice})


def side_of_a(session: BallotSession, place: int) -> str:
    return "left" if session.pair(place)["left"].startswith("answer of A") else "right"


def test_choices_are_in_the_table_at_once_and_name_the_run(session: BallotSession, table: Path) -> None:
    for place, side in enumerate([side_of_a(session, 0), "tie"]):
        choose(session, place, side)
    assert read_choices(table) == {session.pair(0)["id"]: "a", session.pair(1)["id"]: "tie"}
    again = BallotSession(table)
    assert again.state() == {"decided": 2, "pairs": 4, "open": 2}
    assert again.pair(0) == session.pair(0)
    assert session.pair(0)["input"] == "=input"  # not as the spreadsheet has it


def test_choices_of_a_session_can_be_undone(session: BallotSession, table: Path) -> None:
    for place, choice in ((0, "left"), (1, "right"), (0, "tie")):
        choose(session, place, choice)
    shown = [session.undo() for _ in range(3)]
    assert [one and (one["place"], one["choice"]) for one in shown] == [(0, "left"), (1, ""), (0, "")]
    assert session.undo() is None
    assert BallotSession(table).state()["decided"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"id": "c0"}',
        b'{"id": "no", "choice": "tie"}',
        b'{"id": ["c0"], "choice": "tie"}',
        b'{"id": {}, "choice": "tie"}',
        b'{"id": "c0", "choice": "a"}',
        b'{"id": "c0", "choice": ["tie"]}',
        b"[]",
    ],
)
def test_what_is_no_choice_is_refused_with_a_reason(session: BallotSession, table: Path, body: bytes) -> None:
    before, client = table.read_bytes(), application(session).test_client()
    token = re.search(r'"token": *"([^"]+)"', client.get("/").text)
    assert token
    reply = client.post("/choices", data=body, headers={"X-Token": token[1]})
    assert reply.status_code == 400
    assert json.loads(reply.text)["error"].startswith("not saved: ")
    assert table.read_bytes() == before


def test_another_site_can_neither_choose_nor_read_and_the_runs_are_not_told(session: BallotSession) -> None:
    client = application(session).test_client()
    choice = {"id": session.pair(0)["id"], "choice": "left"}
    assert client.post("/choices", json=choice).status_code == 403
    assert client.post("/undo", json={}).status_code == 403
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/pairs/4").status_code == 404
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "secret" not in client.get("/").text + client.get("/pairs/0").text
    assert session.state()["decided"] == 0


def test_a_table_that_cannot_be_written_keeps_its_choices(session: BallotSession, table: Path) -> None:
    table.unlink()
    table.mkdir()
    with pytest.raises(OSError, match="ballots"):
        choose(session, 0, "left")
    assert session.state()["decided"] == 0
    assert session.undo() is None


def test_what_cannot_be_undone_on_a_full_disk_stays(session: BallotSession, table: Path) -> None:
    choose(session, 0, "left")
    client = application(session).test_client()
    token = re.search(r'"token": *"([^"]+)"', client.get("/").text)
    assert token
    with largest_file(1):
        reply = client.post("/undo", json={}, headers={"X-Token": token[1]})
    assert (reply.status_code, json.loads(reply.text)["error"].partition(":")[0]) == (400, "not undone")
    assert session.state()["decided"] == 1
    assert session.undo()


def test_tables_that_are_none_are_one_line(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="was not written by this command"):
        BallotSession(tmp_path / "notes.csv")
    fixed = ["--task=coi2_test", f"--config={CONFIGS / 'judge/pairwise.py'}", "--page", "--no_browser"]
    assert cli.run(lambda: judge.main(["--a=x", "--b=y", f"--ballots={table}", *fixed])) == 2
    assert cli.run(lambda: judge.main(["--a=x", "--b=y", *fixed])) == 2
    assert cli.run(lambda: judge.main(["--a=x", "--b=y", "--ballots=new.csv", "--port=99999", *fixed])) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "compares runs/secret_a as A with runs/secret_b as B on coi2_test; name these, or another" in lines[0]
    assert "--page: without --ballots: fills in a table: name its file with --ballots" in lines[1]
    assert "--port: 99999: is none; name one from 1 to 65535" in lines[2]


def press(page: webdriver.Chrome, *keys: str) -> None:
    ActionChains(page).send_keys(*keys).perform()


def test_a_person_compares_by_keyboard(
    session: BallotSession, address: str, browser: str, tmp_path: Path, table: Path
) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.get(address)
        until(page, lambda page: text(page, "#left .text") == session.pair(0)["left"])
        assert HOSTILE in text(page, "#instruction")
        press(page, "l")
        until(page, lambda page: text(page, "#right .text") == session.pair(1)["right"])
        assert text(page, "#progress") == "1 of 4 pairs decided"
        press(page, "t")
        until(page, lambda page: text(page, "#right .text") == session.pair(2)["right"])
        press(page, "u")
        until(page, lambda page: text(page, "#progress") == "1 of 4 pairs decided")
        press(page, Keys.ARROW_LEFT)
        until(page, lambda page: text(page, "#said") == "your choice: left is better")
        page.save_screenshot(str(tmp_path / "ballots.png"))
        press(page, "g")
        press(page, "4", Keys.ENTER)
        until(page, lambda page: text(page, "#left .text") == session.pair(3)["left"])
        press(page, "r")
        until(page, lambda page: text(page, "#said").startswith("That was the last pair"))
        press(page, "o")
        until(page, lambda page: text(page, "#left .text") == session.pair(1)["left"])
        assert page.title == "Compare answers"
    assert [row["choice"] for row in map(BallotSession(table).pair, range(4))] == ["left", "", "", "right"]
