"""The status page as a browser has it."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from agent_flows.report import Step, TaskError, TaskOutcome, TaskState
from lab.browser import shape
from lab.process import wait_until
from lab.server_parts import FakeAgent

SECONDS = 30
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
MakePort = Callable[..., str]


def text_of(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def focused(browser: webdriver.Chrome) -> str:
    return browser.switch_to.active_element.text


def test_a_person_comes_from_the_overview_to_the_failure_of_a_port(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort
) -> None:
    agent.send(agent.report(make_port("web"), fails="bind-vlan"))
    browser.get(address)
    assert "1 of 1 ports is out of sync" in text_of(browser)
    browser.find_element(By.LINK_TEXT, "web").click()
    shown = text_of(browser)
    assert "bind-vlan failed: SwitchError: the switch refused a flow" in shown
    assert "OFPFMFC_TABLE_FULL" in shown
    bars = browser.find_elements(By.CSS_SELECTOR, "svg.bar rect")
    assert all(bar.rect["width"] > 0 for bar in bars)
    assert len(bars) > 1


def test_nothing_that_was_reported_becomes_part_of_the_page(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port(HOSTILE)
    error = TaskError("SwitchError", HOSTILE, HOSTILE)
    tasks = (TaskOutcome("bind-vlan", Step.L2, TaskState.FAILED, error=error),)
    agent.send(agent.report(port, tasks=tasks))
    agent.beat(troubles={"switch": HOSTILE})
    for path in (
        *("/", "/page/ports", f"/page/ports/{port}", "/page/hosts", "/page/hosts/host-a"),
        # What a link to the page may contain; refusals are pages, too.
        *(f"/page/ports?{name}={quote(HOSTILE)}" for name in ("host", "sync_state")),
    ):
        browser.get(address + path)
        assert browser.title.endswith(" - agent_flows")
        fields = browser.find_elements(By.TAG_NAME, "input")
        read = text_of(browser) + "".join(str(each.get_property("value")) for each in fields)
        assert "<script>document.title=" in read
        assert browser.find_elements(By.TAG_NAME, "img") == []
        # A breach of the Content-Security-Policy would be one; so is a refusal.
        lines = [line["message"] for line in browser.get_log("browser")]
        assert [line for line in lines if "status of 400" not in line] == []


def test_the_page_follows_what_happens_until_it_is_paused(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port("web")
    browser.get(address)
    agent.send(agent.report(port, fails="bind-vlan"))
    wait_until(lambda: "out of sync" in text_of(browser), SECONDS, "the page shows the failure")
    browser.find_element(By.ID, "pause").click()
    assert browser.find_element(By.ID, "pause").get_attribute("aria-pressed") == "true"
    agent.wire(port)
    assert "out of sync" in text_of(browser)
    browser.find_element(By.ID, "pause").click()
    wait_until(lambda: "are in sync" in text_of(browser), SECONDS, "the page shows that it works")


def test_an_update_keeps_what_was_opened_and_the_focus(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort
) -> None:
    port = make_port("web")
    for attempt in (1, 2):
        agent.send(agent.report(port, fails="bind-vlan", attempt=attempt))
    browser.get(f"{address}/page/ports/{port}")
    browser.find_element(By.TAG_NAME, "summary").click()
    link = browser.find_element(By.LINK_TEXT, "host-a")
    browser.execute_script("arguments[0].focus()", link)
    agent.send(agent.report(port, fails="bind-vlan", attempt=3))
    wait_until(lambda: "Last: wire, attempt 3" in text_of(browser), SECONDS, "it is updated")
    opened = browser.find_elements(By.CSS_SELECTOR, "details[open]")
    assert len(opened) == 1
    assert opened[0].text.startswith("wire, attempt 1")
    assert focused(browser) == "host-a"


def test_the_keyboard_reaches_the_content(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort
) -> None:
    agent.send(agent.report(make_port("web"), fails="bind-vlan"))
    browser.get(address)
    keys = browser.find_element(By.TAG_NAME, "body")
    keys.send_keys(Keys.TAB)
    assert focused(browser) == "Skip to the content"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert "OUT_OF_SYNC" in focused(browser)


def test_it_is_readable_without_javascript(
    start_browser: Callable[..., webdriver.Chrome],
    address: str,
    agent: FakeAgent,
    make_port: MakePort,
) -> None:
    agent.send(agent.report(make_port("web"), fails="bind-vlan"))
    browser = start_browser(javascript=False)
    browser.get(address)
    assert not browser.find_element(By.ID, "pause").is_displayed()
    browser.find_element(By.LINK_TEXT, "web").click()
    assert "OFPFMFC_TABLE_FULL" in text_of(browser)
    browser.find_element(By.LINK_TEXT, "Ports").click()
    browser.find_element(By.ID, "host").send_keys("host-a", Keys.ENTER)
    assert "web" in text_of(browser)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_dark_and_in_light(
    start_browser: Callable[..., webdriver.Chrome],
    address: str,
    agent: FakeAgent,
    make_port: MakePort,
    dark: bool,
) -> None:
    port = make_port("a-name-without-a-space-" * 8)
    agent.send(agent.report(port, fails="bind-vlan"))
    agent.beat(troubles={"switch": "a-trouble-without-a-space-" * 8}, version="v" * 200)
    browser = start_browser()
    shape(browser, 360, 800, dark=dark, mobile=True)
    for path in ("/", "/page/ports", f"/page/ports/{port}", "/page/hosts", "/page/hosts/host-a"):
        browser.get(address + path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") is not dark


@pytest.mark.parametrize("dark", [False, True])
def test_a_screen_reader_finds_names_roles_and_contrast(
    browser: webdriver.Chrome, address: str, agent: FakeAgent, make_port: MakePort, dark: bool
) -> None:
    """As axe-core checks it: the rules of WCAG 2.1, levels A and AA, and its own of practice."""
    port = make_port("web")
    agent.send(agent.report(port, fails="bind-vlan"))
    agent.send(agent.report(port, fails="bind-vlan", attempt=2))
    agent.beat(troubles={"switch": "ovs-vswitchd does not answer"})
    make_port("waits")
    shape(browser, 1000, 800, dark=dark)
    for path in (
        *("/", "/page/ports", f"/page/ports/{port}", "/page/hosts", "/page/hosts/host-a"),
        *("/page/ports?name=none", "/page/ports/none"),
    ):
        browser.get(address + path)
        found = Axe().run(browser)
        assert found["passes"]
        wrong = [
            f"{each['id']}: {node['html']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]
        assert wrong == []


def test_the_policy_keeps_out_what_is_not_the_pages_own(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(address)
    ran = browser.execute_script(
        "const own = document.createElement('script'); own.textContent = 'window.taken = 1';"
        "document.body.append(own); return window.taken === undefined"
    )
    assert ran
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))
