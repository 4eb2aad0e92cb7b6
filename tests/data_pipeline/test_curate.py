import json
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from coi_jax.common import files
from coi_jax.common.errors import UserError
from data_pipeline import curate
from data_pipeline.build import decisions
from data_pipeline.build.review.chain_outcomes import NOT_SELECTED, WRITTEN, Outcome
from data_pipeline.build.review.curation import CurationSession
from data_pipeline.build.review.curation_page import application, make_page_server
from tests.helpers import browsers
from tests.helpers.browsers import text, until
from tests.helpers.drafts import draft, opinion
from tests.helpers.file_limits import largest_file

SCORES = (3, 4, 5, 1, 4)
HOSTILE = "</script><script>document.title = 'HACKED'</script><b>bold</b>"


@pytest.fixture
def found() -> list[Outcome]:
    drafts = [draft(f"{HOSTILE} {n}", 2 + n % 3, opinion(score)) for n, score in enumerate(SCORES)]
    return [Outcome(one, WRITTEN if one.opinion and one.opinion.valid else NOT_SELECTED) for one in drafts]


@pytest.fixture
def session(found: list[Outcome], tmp_path: Path) -> CurationSession:
    return CurationSession(found, tmp_path / "decisions.jsonl", "a tester", 4, 0)


@pytest.fixture
def address(session: CurationSession) -> Iterator[str]:
    server = make_page_server(session, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def rows(session: CurationSession) -> list[dict[str, object]]:
    return list(files.read_jsonl(session.path))


def test_decisions_are_lines_at_once_and_go_on_where_they_ended(session: CurationSession, found: list[Outcome]) -> None:
    session.decide({"id": session.order[0], "decision": "accept"})
    assert rows(session) == [{"id": session.order[0], "decision": "accept", "by": "a tester"}]
    with open(session.path, "a", encoding="utf-8") as file:
        file.write('{"id": "cut')
    again = CurationSession(found, session.path, "another", 4, 0)
    assert again.first_open() == 1
    assert again.state()["decided"] == 1
    again.decide({"id": again.order[1], "decision": "reject"})
    assert [row["by"] for row in rows(session)] == ["a tester", "another"]


@pytest.mark.parametrize("row", [{"id": "no such", "decision": "accept"}, {"decision": "accept"}, None, []])
def test_what_is_no_decision_is_refused_and_not_written(session: CurationSession, row: object) -> None:
    with pytest.raises(UserError):
        session.decide(row)
    assert not session.path.exists()


def test_another_site_can_neither_decide_nor_read(session: CurationSession) -> None:
    client = application(session).test_client()
    decision = {"id": session.order[0], "decision": "accept"}
    assert client.post("/decisions", json=decision).status_code == 403
    assert client.post("/decisions", json=decision, headers={"X-Token": "guess"}).status_code == 403
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/chains/99").status_code == 404
    assert not session.path.exists()


def test_nothing_but_the_page_itself_runs_on_it(session: CurationSession) -> None:
    reply = application(session).test_client().get("/")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["X-Frame-Options"] == "DENY"
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert reply.text.count(f'nonce="{nonce}"') == 2


def test_decisions_of_a_session_can_be_undone(session: CurationSession, found: list[Outcome]) -> None:
    first, second = session.order[:2]
    for name, decision in ((first, "accept"), (second, "reject"), (first, "reject")):
        session.decide({"id": name, "decision": decision})
    shown = [session.undo() for _ in range(3)]
    assert [one and (one["place"], one["decision"] and one["decision"]["decision"]) for one in shown] == [
        (0, "accept"),
        (1, None),
        (0, None),
    ]
    assert session.undo() is None
    assert session.state()["decided"] == 0
    assert CurationSession(found, session.path, "another", 4, 0).state()["decided"] == 0
    assert decisions.read(session.path).rows == {}
    assert len(rows(session)) == 6  # nothing is erased


def test_what_a_full_disk_does_not_take_is_neither_decided_nor_undone(session: CurationSession) -> None:
    first, second = session.order[:2]
    session.decide({"id": first, "decision": "accept"})
    client = application(session).test_client()
    token = re.search(r'"token": *"([^"]+)"', client.get("/").text)
    assert token
    for route, body in (("/decisions", {"id": second, "decision": "reject"}), ("/undo", {})):
        with largest_file(1):
            assert client.post(route, json=body, headers={"X-Token": token[1]}).status_code == 400
    assert session.state()["decided"] == 1
    assert [one and one["place"] for one in (session.undo(), session.undo())] == [0, None]


def test_undoing_needs_the_token_of_the_page(session: CurationSession) -> None:
    session.decide({"id": session.order[0], "decision": "accept"})
    assert application(session).test_client().post("/undo", json={}).status_code == 403
    assert session.state()["decided"] == 1


def test_filters_leave_the_chains_that_they_name(session: CurationSession) -> None:
    scores = [session.chain(place)["chain"]["opinion"]["score"] for place in range(len(SCORES))]
    doubtful = [place for place, score in enumerate(scores) if score in (3, 4)]  # on either side of the threshold
    assert session.places("doubtful", "") == doubtful
    assert "just too little" in session.chain(scores.index(3))["doubt"]
    assert session.chain(scores.index(5))["doubt"] is None
    session.decide({"id": session.order[1], "decision": "accept"})
    session.decide({"id": session.order[2], "decision": "reject"})
    assert session.places("undecided", "") == [0, 3, 4]
    assert session.places("accepted", "") == [1]
    assert session.places("rejected", "") == [2]
    assert session.places("edited", "") == []
    assert session.places("all", "") == [0, 1, 2, 3, 4]
    assert session.places("all", f"DO  {session.order[3].upper()}") == [3]
    assert session.places("all", "no-such-word") == []
    assert application(session).test_client().get("/places?show=nothing").status_code == 400


def test_a_taken_port_is_one_line(session: CurationSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port: {port}: Address already in use; leave --port out"):
            make_page_server(session, port)
    with pytest.raises(UserError, match="port: 70000"):
        make_page_server(session, 70000)


def test_serving_logs_nothing(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with urllib.request.urlopen(address) as reply:
        assert reply.status == 200
    assert capfd.readouterr() == ("", "")


def test_a_person_filters_jumps_and_undoes(
    session: CurationSession, address: str, browser: str, tmp_path: Path
) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.get(address)
        shown(page, session.order[0])
        press(page, "r")
        shown(page, session.order[1])
        press(page, "u")
        assert "your decision" not in shown(page, session.order[0])
        press(page, "g")
        ActionChains(page).send_keys("4", Keys.ENTER).perform()
        shown(page, session.order[3])
        Select(page.find_element("id", "show")).select_by_visible_text("doubtful")
        doubtful = session.places("doubtful", "")
        until(page, lambda page: f"of {len(doubtful)}" in text(page, "#of"))
        until(page, lambda page: text(page, "#doubt").startswith("Doubtful: the second opinion gives"))
        page.save_screenshot(str(tmp_path / "curate.png"))
    assert [row["decision"] for row in rows(session)] == ["reject", "undo"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"id": "\xff", "decision": "accept"}',
        b'{"id": "a", "id": "b", "decision": "accept"}',
        b'{"id": 1' + b"0" * 5000 + b', "decision": "accept"}',
        b'{"id": "ID", "decision": "edit", "steps": [["\\ud800", ""], ["a", "b"]]}',
        b'{"id": "ID", "decision": "edit", "steps": NaN}',
        b'{"id": "ID", "decision": ["accept"]}',
        b'{"id": "ID", "decision": "edit", "steps": [[1, 2], {}]}',
    ],
    ids=lambda body: str(body[:30]),
)
def test_a_request_that_is_no_decision_is_refused_with_a_reason(session: CurationSession, body: bytes) -> None:
    client = application(session).test_client()
    token = re.search(r'"token": *"([^"]+)"', client.get("/").text)
    assert token
    reply = client.post(
        "/decisions", data=body.replace(b"ID", session.order[0].encode()), headers={"X-Token": token[1]}
    )
    assert reply.status_code == 400
    assert "decision" in json.loads(reply.text)["error"]
    assert not session.path.exists()


def test_a_person_decides_by_keyboard(session: CurationSession, address: str, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.get(address)
        shown(page, session.order[0])
        assert page.title == "Curate chains"  # nothing of the data is read as HTML
        assert HOSTILE in text(page, "#chain .text")
        press(page, "a")
        shown(page, session.order[1])
        press(page, "r")
        shown(page, session.order[2])
        edit(page, "Say it again.", "again")
        shown(page, session.order[3])
        press(page, Keys.ARROW_LEFT)
        assert "your decision: edit" in shown(page, session.order[2])
        assert "Say it again." in text(page, "#chain")
        press(page, Keys.ARROW_LEFT)
        shown(page, session.order[1])
        press(page, "a")  # a person may change their mind
        until(page, lambda page: "agrees with" in text(page, "#agreement"))
        assert "3 of 5 chains decided" in text(page, "#progress")
        page.save_screenshot(str(tmp_path / "curate.png"))
    assert [row["decision"] for row in rows(session)] == ["accept", "reject", "edit", "accept"]
    assert [row["id"] for row in rows(session)] == [session.order[n] for n in (0, 1, 2, 1)]
    steps = rows(session)[2]["steps"]
    assert isinstance(steps, list)
    assert steps[-1] == ["Say it again.", "again"]


def press(page: webdriver.Chrome, key: str) -> None:
    ActionChains(page).send_keys(key).perform()


def shown(page: webdriver.Chrome, chain: str) -> str:
    """Waits for a chain; returns the line above it."""
    until(page, lambda page: chain in text(page, "#said"))
    return text(page, "#said")


def edit(page: webdriver.Chrome, instruction: str, output: str) -> None:
    """Edits the last step by keyboard alone."""
    press(page, "e")
    areas = page.find_elements("css selector", "textarea")
    for area, words in zip(areas[-2:], (instruction, output), strict=True):
        area.send_keys(Keys.CONTROL, "a")
        area.send_keys(words)
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()


def test_an_edit_can_be_left(session: CurationSession, address: str, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.get(address)
        shown(page, session.order[0])
        press(page, "e")
        page.find_element("css selector", "textarea").send_keys("a r e ")
        press(page, Keys.ESCAPE)
        assert "a r e " not in text(page, "#chain")
        page.find_element("css selector", "button.reject").click()
        shown(page, session.order[1])
    assert [row["decision"] for row in rows(session)] == ["reject"]


def test_a_folder_that_is_no_work_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"work.*holds no chains\.jsonl"):
        curate.main([f"--work={tmp_path}", "--no_browser"])


def test_a_user_without_a_name_decides_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user of its own."""

    def refuse() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", refuse)
    assert curate._user() == f"user {os.getuid()}"


def test_the_order_is_that_of_doubt(session: CurationSession, found: list[Outcome]) -> None:
    assert sorted(session.order) == sorted(one.draft.id for one in found)
    assert json.dumps(session.chain(0)["chain"]["opinion"])
