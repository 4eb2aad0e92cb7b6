import re
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from coi_jax.common.local_page import safe_json
from data_pipeline.build.review import chain_outcomes
from tests.helpers import browsers, super_ni_tasks
from tests.helpers.browsers import text, until
from tests.helpers.builds import endpoint, flags, run
from tests.helpers.llm_server import rates, running

pytestmark = pytest.mark.xdist_group("reports")  # its fixtures take long: one worker makes them


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a build of tasks among which one gives orders in HTML."""
    folder = tmp_path_factory.mktemp("report")
    tasks = super_ni_tasks.write(folder / "super_ni", orders="</script><script>document.title = 'HACKED'</script>")
    with running(brain="reader", rates=rates(0.3)) as server:
        small = {"joins.lengths": "()", "variants": "('fused',)"}
        assert run(flags(folder / "built", tasks, **endpoint(server.url) | small)) == 0
    return folder / "built.work"


def found(page: webdriver.Chrome) -> int:
    return int(text(page, "#found").split()[0].replace(",", ""))


def test_the_page_shows_the_stages_and_finds_chains(work: Path, browser: str, tmp_path: Path) -> None:
    chains = list(chain_outcomes.read(str(work)))
    with browsers.opened(browser, tmp_path) as page:
        page.get(f"file://{work}/report.html")
        until(page, lambda page: text(page, "#found"))
        assert page.title.startswith("Chains built from")
        assert found(page) == len(chains)
        titles = [each.text for each in page.find_elements(By.TAG_NAME, "h2")]
        assert {"What was left at each stage", "Which category can follow which", "What it cost", "The chains"} <= set(
            titles
        )
        assert page.find_elements(By.CSS_SELECTOR, ".funnels .bar")
        Select(page.find_element(By.ID, "status")).select_by_visible_text("written")
        assert found(page) == sum(one.status == "written" for one in chains) > 0
        page.find_element(By.ID, "clear").click()
        draft = chains[0].draft
        page.find_element(By.ID, "search").send_keys(str(draft.steps[-1].output))
        assert found(page) >= 1
        page.find_element(By.CSS_SELECTOR, "details.chain summary").click()
        until(page, lambda page: draft.steps[0].instruction in text(page, "details.chain .body"))
        assert "can follow" in text(page, "details.chain .body")


def test_a_cell_of_the_heat_map_shows_its_chains(work: Path, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path) as page:
        page.get(f"file://{work}/report.html")
        until(page, lambda page: text(page, "#found"))
        everything = found(page)
        cell = page.find_elements(By.CSS_SELECTOR, ".heat td[data-first]")[0]
        pair = f"{cell.get_attribute('data-first')} → {cell.get_attribute('data-second')}"
        page.execute_script("arguments[0].click()", cell)
        until(page, lambda page: pair in text(page, "#found"))
        assert found(page) < everything


def test_the_page_fits_a_phone(work: Path, browser: str, tmp_path: Path) -> None:
    with browsers.opened(browser, tmp_path) as page:
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        page.get(f"file://{work}/report.html")
        until(page, lambda page: text(page, "#found"))
        width = page.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390


def test_every_column_has_a_heading_and_every_cell_of_the_heat_map_is_explained(work: Path) -> None:
    html = (work / "report.html").read_text(encoding="utf-8").partition('<script type="application/json"')[0]
    assert not re.findall(r"<th[^>]*></th>", html)
    assert not re.findall(r"<td[^>]*></td>", html.replace('<td class="untried" title="', "<td>"))
    shares = re.findall(r"(\d+) of (\d+) can follow\"[^>]*>(\d+)</td>", html)
    assert shares
    assert all(int(shown) == round(100 * int(passed) / int(tried)) for passed, tried, shown in shares)


def test_the_page_asks_for_nothing_from_elsewhere(work: Path) -> None:
    html = (work / "report.html").read_text(encoding="utf-8")
    for word in ("src=", "@import", "url(", "<link", "fetch(", "http://", "https://"):
        assert word not in html.partition('<script type="application/json"')[0], word


@pytest.mark.parametrize("value", ["</script>", "<!--", "\u2028", "<script>", "]]>"])
def test_no_text_ends_the_script_that_holds_it(value: str) -> None:
    made = safe_json({"a": value})
    assert "<" not in made
    assert "\u2028" not in made
