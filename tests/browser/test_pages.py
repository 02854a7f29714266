"""Every page is readable and works by keyboard, with a screen reader, on a phone and without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from fhir_server.portal.record.sections import SECTIONS
from tests.browser.browser_session import APP, PASSWORD, STATE, Walk
from tests.browser.conftest import Command

PAGES: dict[str, Callable[[Walk], object]] = {
    "sign-in": lambda walk: walk.ask(),
    "sign-in refused": lambda walk: walk.ask().sign_in("stranger", "Wrong-pass-2026"),
    "record picker": lambda walk: walk.ask().sign_in("parent-a").offered(),
    "consent": lambda walk: walk.ask().sign_in("parent-a").pick("teen"),
    "consent invalid": lambda walk: (
        walk.ask("launch/patient patient/Observation.rs").sign_in("parent-a").pick("teen")
        .untick("patient/Observation.rs").press("button[value=allow]")
    ),
    "no record": lambda walk: walk.ask().sign_in("billing"),
    "error": lambda walk: walk.browser.get(f"{walk.origin}/oauth/authorize?client_id=nobody"),
    "signed out": lambda walk: walk.browser.get(f"{walk.origin}/signed-out"),
    "consent open": lambda walk: [
        summary.click() for summary in walk.ask(KINDS).sign_in("adult").pick("adult").all("summary")
    ],
    "visit": lambda walk: walk.ask("launch/patient launch/encounter patient/*.rs").sign_in("adult").pick("adult"),
    "welcome": lambda walk: walk.visit("/"),
    "start": lambda walk: walk.visit("/", "parent-a"),
    "sharing": lambda walk: walk.visit("/sharing", "adult"),
    "sharing invalid": lambda walk: share(walk, name=" "),
    "code": lambda walk: share(walk, name="Grandmother Josephine"),
    "code to use": lambda walk: walk.visit("/accept", "parent-a"),
    "code refused": lambda walk: walk.visit("/accept", "newly-adult").fill(code="AAAA").press("button.primary"),
    "apps": lambda walk: (walk.ask().sign_in("parent-b").pick("child").press("button[value=allow]"), walk.visit("/apps")),
    "links": lambda walk: walk.visit("/links", "adult"),
    "account with open menus": lambda walk: [summary.click() for summary in walk.visit("/apps", "parent-a").all("summary")],
    "account": lambda walk: (walk.visit("/account", "adult"), Walk.fresh(walk.browser, walk.origin).visit("/account", "adult")),
    "account refused": lambda walk: (
        walk.visit("/account", "adult").fill(**{"password-password": "Wrong-pass-2026", "new": NEW, "again": NEW})
        .press("form[action='/account/password'] button")
    ),
    "two-step verification": lambda walk: (
        walk.visit("/account", "proxy-full").fill(**{"password-second": PASSWORD}).press("form[action='/account/second'] button")
    ),
    "password to set": lambda walk: walk.visit("/set-password"),
    "account to open": lambda walk: walk.visit("/join"),
    "account refused to open": lambda walk: (
        walk.visit("/join").fill(code="AAAA", born="02291980", username="alexandra", new=NEW, again=NEW).press("button.primary")
    ),
    "forgotten password": lambda walk: walk.visit("/forgot"),
    "help is on its way": lambda walk: walk.visit("/forgot").fill(address="nobody@adult.example").press("button.primary"),
    "code from an e-mail": lambda walk: walk.visit("/recover"),
    "e-mail address": lambda walk: walk.visit("/account/contact", "adult"),
    "e-mail address refused": lambda walk: (
        walk.visit("/account/contact", "adult").fill(address="alex@adult.example", **{"password-address": "Wrong-pass-2026"})
        .press("form[action='/account/contact'] button")
    ),
    "charts": lambda walk: walk.visit("/ehr", "clinician"),
    "chart": lambda walk: walk.visit("/ehr/adult", "clinician"),
    "record": lambda walk: record(walk, "adult"),
    "record of a teenager": lambda walk: record(walk, "parent-a", "Toni"),
    "record with open menus": lambda walk: [summary.click() for summary in record(walk, "adult").all("summary")],
    "results": lambda walk: record(walk, "adult", page="/results"),
    "medicines": lambda walk: record(walk, "adult", page="/medicines"),
    "vital signs": lambda walk: record(walk, "adult", page="/vital-signs"),
    "value": lambda walk: record(walk, "adult", page="/vital-signs").press("a.what"),
    "documents": lambda walk: record(walk, "parent-a", "Toni", "/documents"),
    "vaccination proof": lambda walk: record(walk, "adult", page="/vaccination-proof"),
    "vaccination card": lambda walk: record(walk, "adult", page="/vaccination-proof/covid-19"),
    "download": lambda walk: record(walk, "parent-a", "Toni", "/download"),
    "download refused": lambda walk: record(walk, "adult", page="/download/file?format=pdf&from=2026-02-02&to=2026-02-01"),
    "who looked": lambda walk: record(walk, "adult", page="/access"),
    "record that is not open": lambda walk: (walk.visit("/", "adult"), walk.visit("/r/invented")),
    "register an app": lambda walk: walk.visit("/register-app"),
    "registration refused": lambda walk: register(walk, "Demo phone app"),
    "app registered": lambda walk: register(walk, f"Diary of {token_hex(8)}"),
}  # fmt: skip
NAMES = ("Wilhelmina-" + "Featherstonehaugh" * 3 + " von Hohenzollern", "فاطمة الزهراء بنت محمد", "王小明" * 20)
NEW = "a new and unlikely phrase 2026"
KINDS = "openid fhirUser launch/patient offline_access patient/Observation.rs patient/Condition.rs"


def share(walk: Walk, name: str) -> None:
    walk.visit("/sharing", "adult").fill(name=name).one(".new input[name=level][value=standard]").click()
    walk.press(".new button.primary")


def record(walk: Walk, username: str, name: str = "", page: str = "") -> Walk:
    """Open a page of a record from the first page."""
    walk.visit("/", username)
    addresses = {link.text: link.get_attribute("href") for link in walk.all(".entries .name a")}
    address = next(address for known, address in addresses.items() if name in known)
    return walk.visit(str(address).removeprefix(walk.origin) + page)


def register(walk: Walk, name: str) -> None:
    walk.visit("/register-app").fill(name=name, redirects=f"{APP}/callback").press("button.primary")


OUTLINE = """
return {
  lang: document.documentElement.lang,
  title: document.title,
  headings: [...document.querySelectorAll("h1")].map((h) => h.textContent.trim()),
  mains: document.querySelectorAll("main").length,
  controls: [...document.querySelectorAll("input, button, select, textarea")]
    .filter((control) => control.type !== "hidden" && !control.hidden)
    .map((control) => ({
      name: control.name || control.textContent.trim(),
      words: (control.labels?.[0] ?? control).textContent.trim(),
      tall: (control.labels?.[0]?.closest(".choice") ?? control).getBoundingClientRect().height,
    })),
  alerts: document.querySelectorAll("[role=alert]").length,
};
"""
CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = numbers(colour).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if ((numbers(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
  if (!text || !element.getClientRects().length) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  found.push({ text, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) });
}
return found;
"""
OUTSIDE = """
const card = document.querySelector(".card"), style = getComputedStyle(card);
const edge = card.getBoundingClientRect().right - parseFloat(style.paddingRight) + 1;
const walker = document.createTreeWalker(card, NodeFilter.SHOW_TEXT), found = [];
while (walker.nextNode()) {
  const range = document.createRange();
  range.selectNodeContents(walker.currentNode);
  const seen = walker.currentNode.textContent.trim() && !walker.currentNode.parentElement.closest("option, .unseen");
  if (seen && [...range.getClientRects()].some((box) => box.right > edge)) found.push(walker.currentNode.textContent.trim());
}
return found;
"""
RING = """
const style = getComputedStyle(document.activeElement);
return [style.outlineStyle, parseFloat(style.outlineWidth)];
"""


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, chrome: Chrome, origin: str) -> Iterator[Walk]:
    """The browser on this page; the tests of one page share it."""
    walk = Walk.fresh(chrome, origin)
    PAGES[request.param](walk)
    yield walk


def outline(walk: Walk) -> dict[str, Any]:
    found: dict[str, Any] = walk.browser.execute_script(OUTLINE)
    return found


def test_page_has_language_title_heading_and_control_labels(page: Walk) -> None:
    found = outline(page)
    assert found["lang"] == "en"
    assert found["mains"] == 1
    assert len(found["headings"]) == 1
    assert found["headings"][0] in found["title"]
    assert [control for control in found["controls"] if not control["words"]] == []


def test_page_title_announces_a_problem(page: Walk) -> None:
    assert outline(page)["title"].startswith("Problem: ") == bool(page.all("[role=alert]"))


def test_invalid_field_is_described_by_its_error(page: Walk) -> None:
    for field in page.all("[aria-invalid=true]"):
        named = (field.get_attribute("aria-describedby") or "").split()
        told = " ".join(page.one(f"#{id}").text for id in named)
        assert page.one("[role=alert] p").text in told


def test_some_tested_pages_have_an_invalid_field(walk: Walk) -> None:
    for reach in (lambda: walk.ask().sign_in("stranger", "Wrong-pass-2026"), lambda: share(walk, name=" ")):
        reach()
        assert walk.all("[aria-invalid=true]")


def test_text_contrast_is_at_least_4_5(page: Walk) -> None:
    found = page.browser.execute_script(CONTRAST)
    assert len(found) > 3
    assert [text for text in found if text["ratio"] < 4.5] == []


def test_page_fits_a_phone_with_controls_of_24_pixels(page: Walk) -> None:
    page.phone()
    wide = page.browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1] == 390
    assert page.browser.execute_script(OUTSIDE) == []
    assert [control for control in outline(page)["controls"] if control["tall"] < 24] == []


def too_wide(walk: Walk, width: int) -> list[str]:
    """The texts that do not fit a phone of this width, and the page URL if it scrolls sideways."""
    walk.phone(width)
    scrolls = walk.browser.execute_script("return document.documentElement.scrollWidth") > width
    found: list[str] = walk.browser.execute_script(OUTSIDE)
    return found + [walk.browser.current_url] * scrolls


def test_page_fits_320_pixels_and_text_of_200_percent(page: Walk) -> None:
    assert too_wide(page, 320) == []
    larger = "document.documentElement.style.fontSize = arguments[0]"
    page.browser.execute_script(larger, "200%")
    try:
        assert too_wide(page, 360) == []
    finally:
        page.browser.execute_script(larger, "")


@pytest.fixture
def named(command: Command) -> Iterator[Callable[[str], None]]:
    """Changes the displayed name of the adult for one test."""
    yield lambda name: command("user", "set-name", "adult", name)
    command("user", "set-name", "adult", "Alex Adult")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_long_or_foreign_name_fits_a_phone_untruncated(walk: Walk, named: Callable[[str], None], name: str) -> None:
    named(name)
    walk.visit("/", "adult")
    assert walk.one(".who span").text == f"Signed in as {name}"
    assert too_wide(walk, 360) == []
    walk.visit("/sharing").fill(name=name).one(".new input[name=level][value=standard]").click()
    walk.press(".new button.primary")
    assert name in walk.one("h1").text
    assert too_wide(walk, 360) == []
    walk.visit("/sharing")
    assert too_wide(walk, 360) == []
    (entry,) = [one for one in walk.all(".entries > li") if name in one.find_element(By.CLASS_NAME, "name").text]
    document = walk.one("html")
    entry.find_element(By.CSS_SELECTOR, "form[action='/sharing/end'] button").click()
    walk.until_left(document)
    assert name not in walk.one("main").text


@pytest.mark.slow
def test_tested_pages_are_distinct_and_some_have_a_problem(walk: Walk) -> None:
    titles: dict[str, str] = {}
    for name, reach in PAGES.items():
        reach(Walk.fresh(walk.browser, walk.origin))
        titles[walk.browser.title] = titles.get(walk.browser.title, "") + name
    alike = [
        "consentconsent open",
        "errorrecord that is not open",
        "appsaccount with open menus",
        "recordrecord of a teenagerrecord with open menus",
    ]
    assert [names for names in titles.values() if names not in PAGES] == alike
    assert any(title.startswith("Problem: ") for title in titles)


def test_portal_f1_8_each_page_of_a_record_fits_a_phone_and_has_no_script(walk: Walk) -> None:
    home = record(walk, "parent-a", "Toni").browser.current_url.removeprefix(walk.origin)
    for path in (home, *(f"{home}/{section.slug}" for section in SECTIONS)):
        walk.visit(path)
        assert too_wide(walk, 390) == [], path
        assert walk.all("script") == [], path


def tab_to(walk: Walk, selector: str) -> None:
    """Press Tab until this control has the focus, and check that the focus is visible."""
    for _ in range(20):
        ActionChains(walk.browser).send_keys(Keys.TAB).perform()
        if walk.browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            style, width = walk.browser.execute_script(RING)
            assert style == "solid"
            assert width >= 2
            return
    raise AssertionError(f"Tab does not reach {selector}.")


def type_keys(walk: Walk, *keys: str) -> None:
    ActionChains(walk.browser).send_keys(*keys).perform()


def enter(walk: Walk) -> None:
    document = walk.one("html")
    type_keys(walk, Keys.ENTER)
    walk.until_left(document)


def test_standalone_launch_works_by_keyboard_alone(walk: Walk) -> None:
    walk.start()
    tab_to(walk, "#username")
    type_keys(walk, "parent-a", Keys.TAB, PASSWORD)
    enter(walk)
    tab_to(walk, "input[name=patient]")
    type_keys(walk, Keys.SPACE, Keys.ARROW_DOWN)
    chosen = walk.one("input[name=patient]:checked").get_attribute("value")
    enter(walk)
    tab_to(walk, "input[name=scope][value='patient/*.rs']")
    tab_to(walk, "#offline")
    type_keys(walk, Keys.SPACE)
    tab_to(walk, "button[value=allow]")
    enter(walk)
    walk.until_done()
    assert walk.text("patient") == chosen
    assert "patient/*.rs" in walk.text("scope")
    assert "offline_access" not in walk.text("scope")


def test_first_tab_focuses_the_skip_link(walk: Walk) -> None:
    walk.start()
    type_keys(walk, Keys.TAB)
    assert walk.browser.execute_script("return document.activeElement.hash") == "#main"
    assert walk.one(".skip").rect["x"] >= 0


def test_portal_forms_work_by_keyboard_alone(walk: Walk) -> None:
    walk.visit("/sharing", "adult")
    tab_to(walk, "#name")
    type_keys(walk, "Keyboard Friend")
    tab_to(walk, "#relationship")
    type_keys(walk, "F")
    tab_to(walk, "input[name=level]")
    type_keys(walk, Keys.SPACE, Keys.ARROW_DOWN)
    tab_to(walk, ".new button.primary")
    enter(walk)
    assert "Keyboard Friend" in walk.one("h1").text
    walk.visit("/ehr", "clinician")
    tab_to(walk, "a[href='/ehr/adult']")
    enter(walk)
    tab_to(walk, "#encounter")
    tab_to(walk, "button[value=demo-confidential]")
    enter(walk)
    walk.until_done()
    assert walk.text("patient") == "adult"


def test_portal_forms_work_without_scripts(chrome_without_scripts: Chrome, app: str, origin: str) -> None:
    walk = Walk.fresh(chrome_without_scripts, origin)
    share(walk, "Friend without Scripts")
    code = walk.one(".code code").text
    Walk.fresh(chrome_without_scripts, origin).visit("/accept", "parent-b").fill(code=code).press("button.primary")
    assert "Alex Adult" in walk.one(".lead").text
    Walk.fresh(chrome_without_scripts, origin).visit("/sharing", "adult")
    ended = walk.one("form[action='/sharing/end'] button")
    assert ended.is_displayed()
    Walk.fresh(chrome_without_scripts, origin).visit("/ehr/adult", "clinician").press("button[value=demo-confidential]")
    walk.until_at(f"{APP}/launch?iss=")
    register(walk, "Diary without scripts")
    assert walk.one("h1").text == "Diary without scripts is registered"


def test_authorization_forms_work_without_scripts(chrome_without_scripts: Chrome, app: str, origin: str) -> None:
    walk = Walk.fresh(chrome_without_scripts, origin)
    walk.browser.get(f"{APP}/?iss={origin}/fhir&scope=openid")
    assert walk.all("#no-scripts"), "Scripts are not off."
    walk.ask().sign_in("parent-a").pick("child").press("button[value=allow]")
    walk.until_at(f"{APP}/callback")
    answer = parse_qs(urlsplit(walk.browser.current_url).query)
    assert answer["state"] == [STATE]
    assert answer["code"]
