"""The page of the server, on real models and in a real browser."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from coi_jax.serving.service import Limits
from tests.helpers import browsers
from tests.helpers.browsers import text, until
from tests.helpers.servers import Server, running_server
from tests.helpers.trained_runs import chains, make_run

HOSTILE = "<img src=x onerror=document.title='BAD'><b>bold<b>"
KEY = "not-a-secret"
STEPS = ["Sort the words.", "Count them.", "Double it."]
ANSWER = {"outputs": ["x"], "kept": 0, "text": "x", "tokens": 1, "seconds": 0.1, "notes": [], "stages": {}}
PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    run = make_run(tmp_path_factory.mktemp("made")).path
    shutil.copytree(run, run.parent / HOSTILE)
    limits = Limits(slots=2, waiting=8, seconds=60.0)
    settings: dict[str, Any] = {"evaluation.decoding": "greedy", "evaluation.max_new_tokens": 160}
    with running_server(run, run.parent / HOSTILE, limits=limits, key=KEY, **settings) as running:
        for model in ("run", HOSTILE):
            ask(running, [], model)  # compiles, which the browser need not wait for
        yield running


def question(**changes: Any) -> dict[str, Any]:
    """What a link holds."""
    empty = {"references": [""] * len(STEPS), "models": ["run"], "settings": {}, "answers": []}
    return {"version": 1, "input": "b a", "instructions": STEPS, **empty, **changes}


def link(state: Any) -> str:
    return "#" + base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")


def state_of(address: str) -> dict[str, Any]:
    fragment = address.partition("#")[2]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(fragment + "=" * (-len(fragment) % 4)))
    return found


def open_page(page: webdriver.Chrome, server: Server, fragment: str = "") -> None:
    """Open the page anew with the key; wait until it shows its instructions and models."""
    page.get(f"{server.url}/health")
    page.execute_script("sessionStorage.setItem('coi-serve-key', arguments[0])", KEY)
    page.get(f"{server.url}/{fragment}")
    until(page, lambda page: instructions(page) and page.find_elements(By.CSS_SELECTOR, "#model option"))


def find(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: webdriver.Chrome, selector: str, name: str = "textContent") -> list[str]:
    """The whole texts of elements at one moment, with white space as it is."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element[arguments[1]])"
    found: list[str] = page.execute_script(script, selector, name)
    return found


def instructions(page: webdriver.Chrome) -> list[str]:
    return texts(page, ".instruction", "value")


def assert_refused(page: webdriver.Chrome, status: int) -> None:
    """The console has nothing but refusals of one status, as the browser writes them of itself."""
    lines = [line["message"] for line in page.get_log("browser")]  # type: ignore[no-untyped-call]
    assert all(f"status of {status}" in line or "favicon" in line for line in lines), lines


def press(page: webdriver.Chrome, *keys: str, held: str) -> None:
    ActionChains(page).key_down(held).send_keys(*keys).key_up(held).perform()


def wait_until_written(page: webdriver.Chrome, columns: int = 1) -> None:
    until(page, lambda page: sum(head.startswith("done") for head in texts(page, ".head p:first-of-type")) == columns)


def wait_for_error(page: webdriver.Chrome, reason: str) -> None:
    until(page, lambda page: reason in text(page, "#error"))


def run(page: webdriver.Chrome, columns: int = 1) -> None:
    find(page, "#run").click()
    wait_until_written(page, columns)


def ask(server: Server, outputs: list[str], model: str = "run", input: str = "b a") -> list[str]:
    """The outputs of all steps, as the endpoint writes them."""
    coi = {"instructions": STEPS, "input": input, "outputs": outputs}
    reply = server.client(api_key=KEY).chat.completions.create(model=model, messages=[], extra_body={"coi": coi})
    return [step["output"] for step in reply.choices[0].model_extra["coi"]["steps"]]  # type: ignore[index]


def change(page: webdriver.Chrome, step: int, output: str) -> None:
    """Give a step another output, and let the model go on."""
    find(page, f"#steps > li:nth-child({step}) .change").click()
    area = find(page, "#steps textarea")
    area.clear()
    area.send_keys(output)
    press(page, Keys.ENTER, held=Keys.CONTROL)
    wait_until_written(page)


OBSERVE = """
window.seen = [];
new MutationObserver(() => seen.push(document.querySelector("#steps .cell").textContent))
  .observe(document.getElementById("steps"), {childList: true, subtree: true, characterData: true});
"""

OBSERVE_STATE = """
window.seen = [];
new MutationObserver(() => seen.push(document.querySelector(".state")?.textContent ?? ""))
  .observe(document.getElementById("heads"), {childList: true, subtree: true});
"""
# The first list of models says that they are being loaded; then the server is gone.
LOSE_SERVER = """
const ask = window.fetch;
let times = 0;
window.fetch = async (path, ...rest) => {
  if (path !== "v1/models") return ask(path, ...rest);
  if (times++) throw new TypeError("the server is gone");
  const found = await (await ask(path, ...rest)).json();
  for (const model of found.data) model.coi.ready = false;
  return Response.json(found);
};
"""
# Whether the lower end of what has the focus is not beneath something else.
UNCOVERED = """
const element = document.activeElement, box = element.getBoundingClientRect();
const top = document.elementFromPoint(box.left + box.width / 2, box.bottom - 3);
return top !== null && (element.contains(top) || element.closest(".actions") !== null);
"""
# Where the first and the last character of an element are, from the left.
ENDS = """
const element = document.querySelectorAll(arguments[0])[arguments[1]], nodes = [];
const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) nodes.push(walker.currentNode);
const left = (node, place) => {
  const range = document.createRange();
  range.setStart(node, place);
  range.setEnd(node, place + 1);
  return range.getBoundingClientRect().left;
};
return [left(nodes[0], 0), left(nodes.at(-1), nodes.at(-1).length - 1)];
"""


def is_in_view(page: webdriver.Chrome, selector: str) -> bool:
    """Whether a reader sees an element without scrolling."""
    script = "const box = arguments[0].getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight"
    return bool(page.execute_script(script, find(page, selector)))


def test_a_chain_is_asked_and_each_step_may_say_something_else(server: Server, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.get(server.url)
        until(page, lambda page: text(page, "#key-error") == "the API key is missing or wrong")
        assert_refused(page, 401)
        find(page, "#key").send_keys(KEY, Keys.ENTER)
        until(page, lambda page: len(page.find_elements(By.CSS_SELECTOR, "#model option")) == 2)
        assert not find(page, "#key-form").is_displayed()
        assert page.switch_to.active_element.get_attribute("id") == "input"
        open_page(page, server, link(question(references=["", "", "x"])))

        page.execute_script(OBSERVE)
        run(page)
        [written] = ask(server, [])
        assert texts(page, "#steps .text") == [written]
        assert "0 of 1 steps right" in text(page, ".head")
        assert "has 1 step, 3 were asked for" in text(page, ".head")
        seen = page.execute_script("return seen")
        assert any(0 < len(part) < len(written) and written.startswith(part.strip()) for part in seen), seen

        change(page, 1, "a b")
        first = ask(server, ["a b"])
        assert texts(page, "#steps .text") == first
        assert texts(page, "#steps li:first-child .beside") == [f"Earlier: {written}"]
        assert "changed by you" in text(page, "#steps li:first-child")
        change(page, 2, "2")
        second = ask(server, ["a b", "2"])
        assert texts(page, "#steps .text") == second
        assert texts(page, "#steps li:nth-child(2) .beside") == [f"Earlier: {first[1]}"]
        assert len(page.find_elements(By.CSS_SELECTOR, "#steps li:nth-child(3) .change")) == 0
        find(page, ".head button").click()
        assert texts(page, "#steps .text") == first
        find(page, ".head button").click()

        # A reference counts at once.
        reference = page.find_elements(By.CSS_SELECTOR, ".reference")[2]
        page.execute_script("arguments[0].closest('details').open = true", reference)
        reference.clear()
        reference.send_keys("2 3")
        assert texts(page, "#steps li:nth-child(3) .beside")[0] == "Reference: 2 3"
        assert text(page, "#steps li:nth-child(3) .wrong") == "✗ wrong"
        given = page.find_elements(By.CSS_SELECTOR, ".reference")[1]
        page.execute_script("arguments[0].closest('details').open = true", given)
        given.send_keys(" 2")
        assert text(page, "#steps li:nth-child(2) .right") == "✓ right"


def test_a_link_holds_everything_and_text_stays_text(server: Server, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        asked = question(
            input=HOSTILE,
            instructions=[HOSTILE, STEPS[1], "x" * 60],
            references=["", HOSTILE, "x" * 500],
            models=["run", HOSTILE],
            settings={"temperature": "", "top_p": "", "seed": "", "max_tokens": "7"},
        )
        open_page(page, server, link(asked))
        run(page, columns=2)
        assert len(texts(page, "#steps li:first-child .cell")) == 2
        assert texts(page, ".head h3") == ["run", HOSTILE]
        find(page, "#steps .change").click()
        find(page, "#steps textarea").clear()
        find(page, "#steps textarea").send_keys(HOSTILE)
        press(page, Keys.ENTER, held=Keys.CONTROL)
        wait_until_written(page, columns=2)
        assert texts(page, "#steps .text")[0] == HOSTILE
        find(page, "#code summary").click()
        assert HOSTILE[:20] in text(page, "#curl")
        assert HOSTILE[:20] in text(page, "#python")
        width = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width == [390, 390]

        shown = texts(page, "#answer #steps li")
        find(page, "#share").click()
        address = page.current_url
        assert find(page, "#link").get_property("value") == address
        assert state_of(address) | {"answers": []} == asked
        page.get("about:blank")
        open_page(page, server, address.partition(server.url + "/")[2])
        assert texts(page, "#answer #steps li") == shown
        assert page.title.startswith("CoI-JAX")
        assert not page.find_elements(By.CSS_SELECTOR, "img, b b, #answer b > b")


def test_damaged_links_are_said_and_keys_do_everything(server: Server, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        good = link(question())
        damaged = {
            good[:-9]: "it is cut off or damaged",
            "#%00": "it is cut off or damaged",
            link([]): "its content is missing",
            link(question(answers=[{"model": "run", "answer": ANSWER | {"state": "writing"}}])): "an answer is missing",
            link(question(version=2)): "another version",
            link(question(instructions=["a", 5])): "its list of instructions",
            link(question(references=[])): "its list of references",
            link(question(answers=[{"model": "run"}])): "an answer is missing",
        }
        open_page(page, server)
        for fragment, reason in damaged.items():
            page.execute_script("location.hash = arguments[0]", fragment)
            wait_for_error(page, reason)
            assert instructions(page) == [""]
        page.execute_script("location.hash = arguments[0]", link(question(models=["gone"])))
        wait_for_error(page, "does not have the model of the link: gone")
        assert instructions(page) == STEPS

        find(page, ".instruction").click()
        press(page, Keys.ARROW_DOWN, held=Keys.ALT)
        assert instructions(page) == [STEPS[1], STEPS[0], STEPS[2]]
        press(page, Keys.ARROW_UP, held=Keys.ALT)
        assert instructions(page) == STEPS
        find(page, ".join").send_keys(Keys.ENTER)
        assert instructions(page) == [f"{STEPS[0]} and then {STEPS[1]}", STEPS[2]]
        assert page.switch_to.active_element.get_attribute("aria-label") == "Instruction 1"
        find(page, ".split").send_keys(Keys.ENTER)
        assert instructions(page) == STEPS
        page.find_elements(By.CSS_SELECTOR, ".remove")[2].send_keys(Keys.ENTER)
        find(page, "#add").send_keys(Keys.ENTER)
        page.switch_to.active_element.send_keys(STEPS[2])
        assert instructions(page) == STEPS

        find(page, "#settings summary").send_keys(Keys.ENTER)
        find(page, "#temperature").send_keys("warm")
        press(page, Keys.ENTER, held=Keys.CONTROL)
        assert text(page, "#error") == "temperature: warm is no number"
        assert find(page, "#max_tokens").get_attribute("placeholder") == "160 at most"
        find(page, "#temperature").clear()
        find(page, "#temperature").send_keys("9")
        press(page, Keys.ENTER, held=Keys.CONTROL)
        until(page, lambda page: "temperature: should be less than or equal to 2" in text(page, ".head .fault"))
        assert find(page, "#error").text == ""
        assert_refused(page, 400)
        find(page, "#temperature").clear()
        page.execute_script("arguments[0].click(); arguments[1].click()", find(page, "#run"), find(page, "#stop"))
        until(page, lambda page: "stopped" in text(page, ".head"))
        assert not find(page, "#stop").is_enabled()
        find(page, "#input").send_keys("c")
        press(page, Keys.ENTER, held=Keys.CONTROL)
        wait_until_written(page)
        assert texts(page, "#steps .text") == ask(server, [], input="b ac")
        for typed, is_stale in (("!", True), (Keys.BACKSPACE, False)):
            page.find_elements(By.CSS_SELECTOR, ".instruction")[2].send_keys(typed)
            assert find(page, "#stale").is_displayed() == is_stale
        find(page, "#steps .change").send_keys(Keys.ENTER)
        page.switch_to.active_element.send_keys("?", Keys.ESCAPE)
        assert page.switch_to.active_element.text == "Change …"

        until(page, lambda page: find(page, "#example-field").is_displayed())
        Select(find(page, "#example")).select_by_value("9")
        [chain, *_] = chains(2, 1)
        assert instructions(page) == [step.instruction for step in chain.steps]
        assert texts(page, ".reference", "value") == list(chain.outputs)
        assert find(page, "#input").get_property("value") == chain.input

        controls = "return [...document.querySelectorAll('input, select, textarea, button')]"
        assert (
            page.execute_script(f"{controls}.filter(e => !(e.labels.length || e.ariaLabel || e.textContent)).length")
            == 0
        )


def test_what_is_missing_and_how_an_answer_ended_is_said(server: Server, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        stopped = ANSWER | {"outputs": [], "text": "no label yet", "state": "stopped"}
        cut = ANSWER | {"outputs": ["a b", "2 an"], "state": "failed", "notes": ["the connection was lost"]}
        answers = [{"model": "run", "answer": one, "earlier": None} for one in (stopped, cut)]
        open_page(page, server, link(question(references=["a b", "2", "4"], answers=answers)))
        assert texts(page, ".state") == ["stopped · 1 token · 0.1 s", "failed · 1 token · 0.1 s · 1 of 1 steps right"]
        assert texts(page, ".head .fault") == ["the connection was lost"]
        assert texts(page, "#steps .text") == ["no label yet", "a b", "2 an"]
        assert texts(page, ".tag") == ["✓ right"], "a step that the model had no time for is not wrong"

        find(page, "#add").click()
        press(page, Keys.ENTER, held=Keys.CONTROL)
        assert text(page, "#error") == "Instruction 4 is empty: say what to do, or remove it."
        assert page.switch_to.active_element.get_attribute("aria-label") == "Instruction 4"
        assert is_in_view(page, "#error")
        page.set_window_size(640, 420)  # what the focus goes to is above the bar
        find(page, "#input").click()
        for _ in range(12):
            page.switch_to.active_element.send_keys(Keys.TAB)
            assert page.execute_script(UNCOVERED), page.switch_to.active_element.get_attribute("outerHTML")
        page.set_window_size(1240, 1000)
        assert len(texts(page, ".state")) == 2, "the earlier answers are still there"

        page.execute_script("location.hash = arguments[0]", link(question(instructions=["x"] * 9, references=[""] * 9)))
        until(page, lambda page: len(instructions(page)) == 9)
        page.find_elements(By.CSS_SELECTOR, ".instruction")[8].send_keys("y")
        assert not is_in_view(page, "#answer-title")
        page.execute_script(OBSERVE_STATE)
        press(page, Keys.ENTER, held=Keys.CONTROL)
        wait_until_written(page)
        assert is_in_view(page, "#answer-title")
        states = page.execute_script("return seen")
        assert states[0].startswith("waiting for the model …")
        assert any(state.startswith("writing …") for state in states)

        # A link is opened while an answer is written.
        script = "arguments[0].click(); location.hash = arguments[1]"
        page.execute_script(script, find(page, "#run"), link(question()))
        until(page, lambda page: instructions(page) == STEPS)
        run(page)


def test_signs_of_several_characters_are_whole_and_lines_have_their_direction(
    server: Server, browser: str, tmp_path: Path
) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        girl, boy = ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👦")
        answer = ANSWER | {"state": "done", "outputs": [f"{boy} 🇩🇪 👍🏽", "תפוח!", "c"]}
        references = [f"{girl} 🇩🇰 👍🏽", "אגס!", "d"]
        asked = question(
            instructions=["a", "מיין.", "c"],
            references=references,
            answers=[{"model": "run", "answer": answer, "earlier": None}],
        )
        open_page(page, server, link(asked))
        assert texts(page, "mark.extra")[:2] == [f"{boy} 🇩🇪", "תפוח"]
        assert texts(page, "mark.missing")[:2] == [f"{girl} 🇩🇰", "אגס"]
        # The point of a right-to-left sentence stands at its left.
        for selector, number in ((".text", 1), (".beside bdi", 1), ("#steps h3 bdi", 1)):
            begin, end = page.execute_script(ENDS, selector, number)
            assert end < begin, selector
        assert find(page, "#input").value_of_css_property("unicode-bidi") == "plaintext"


def test_a_server_that_goes_away_while_models_are_loaded_is_said(server: Server, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path / "profile") as page:
        page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LOSE_SERVER})
        open_page(page, server)
        wait_for_error(page, "the server cannot be reached")
        assert text(page, "#state") == ""
