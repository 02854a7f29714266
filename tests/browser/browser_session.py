"""The standalone launch in a browser: app, sign-in, record picker, consent, back to the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from selenium.common import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.waiting import HANG, wait_until

APP = "http://127.0.0.1:8765"
PASSWORD = "Demo-pass-2026"
SCOPE = "openid fhirUser launch/patient offline_access patient/*.rs"
TYPES = ("Observation", "MedicationStatement", "Appointment")
STATE = "a-state-of-twenty-two-characters-or-more"
ABORTED = ("aborted by navigation", "Inspected target navigated or closed", "Cannot find context", "no such execution context")
T = TypeVar("T")


def aborted(error: WebDriverException) -> bool:
    """Whether Chromium has not answered because the page was just being replaced by the next one."""
    return any(words in str(error.msg) for words in ABORTED)


@dataclass(frozen=True)
class Walk:
    """A browser session; each method ends on the next page."""

    browser: Chrome
    origin: str

    @classmethod
    def fresh(cls, browser: Chrome, origin: str) -> Walk:
        """A session without a sign-in, in a desktop-size window."""
        browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return cls(browser, origin)

    def phone(self, width: int = 390) -> None:
        """Set the window to the size of a phone."""
        size = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def start(self, scope: str = SCOPE, **options: object) -> Walk:
        """Open the app, which leads to the sign-in page; ``options`` are fhirclient's."""
        asked = {"iss": f"{self.origin}/fhir", "scope": scope, "options": json.dumps(options)}
        self.browser.get(f"{APP}/?{urlencode(asked)}")
        self.until_at(f"{self.origin}/sign-in")
        return self

    def ask(self, scope: str = SCOPE, **changes: str) -> Walk:
        """Open the sign-in page for an authorization request, without the app."""
        asked = {
            "response_type": "code",
            "client_id": "demo-public",
            "redirect_uri": f"{APP}/callback",
            "scope": scope,
            "state": STATE,
            "aud": f"{self.origin}/fhir",
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636, appendix B
            "code_challenge_method": "S256",
        }
        self.browser.get(f"{self.origin}/oauth/authorize?{urlencode(asked | changes)}")
        return self

    def visit(self, path: str, username: str = "") -> Walk:
        """Open a page of the server, signed in as ``username`` if it is given."""
        if username:
            self.browser.get(f"{self.origin}/sign-in")
            self.sign_in(username)
        self.browser.get(f"{self.origin}{path}")
        return self

    def fill(self, **fields: str) -> Walk:
        """Type into the fields with these ids."""
        for id, text in fields.items():
            self.one(f"#{id}").clear()
            self.one(f"#{id}").send_keys(text)
        return self

    def sign_in(self, username: str, password: str = PASSWORD) -> Walk:
        self.fill(username=username, password=password).press("button.primary")
        return self

    def offered(self) -> dict[str, str]:
        """The picker's choices: patient id to label."""
        self.until_at(f"{self.origin}/oauth/record")
        rows = self.all(".choice")
        return {row.find_element(By.NAME, "patient").get_attribute("value") or "": row.text for row in rows}

    def pick(self, patient: str) -> Walk:
        self.until_at(f"{self.origin}/oauth/record")
        self.one(f"input[name=patient][value={patient}]").click()
        self.press("button.primary")
        return self

    def untick(self, *scopes: str) -> Walk:
        self.until_at(f"{self.origin}/oauth/consent")
        for scope in scopes:
            self.one(f"input[name=scope][value='{scope}']").click()
        return self

    def allow(self) -> Walk:
        self.until_at(f"{self.origin}/oauth/consent")
        self.press("button[value=allow]")
        self.until_done()
        return self

    def deny(self) -> Walk:
        self.press("button[value=deny]")
        self.until_done()
        return self

    def until_done(self) -> None:
        """Wait until the app has loaded everything or failed."""
        self.until_at(f"{APP}/callback")
        self.until(lambda: self.text("state") in ("done", "failed"))

    def refreshed(self) -> Walk:
        """Let the app refresh its tokens and load everything again."""
        self.one("#refresh").click()
        self.until(lambda: self.text("state") in ("done", "failed"))
        return self

    def fetched(self, path: str, token: str) -> int:
        """The status of a FHIR request with this token from a script on the current page."""
        asked = "fetch(arguments[0], { headers: { Authorization: `Bearer ${arguments[1]}` } })"
        script = (
            f"const done = arguments[arguments.length - 1]; {asked}.then((answer) => done(answer.status), (error) => done(String(error)))"
        )
        status: int = self.browser.execute_async_script(script, f"{self.origin}/fhir/{path}", token)
        return status

    def seen(self) -> dict[str, list[str]]:
        """The ids that the app lists, by type."""
        assert self.text("state") == "done", self.text("problem")
        return {type: sorted(row.text.removeprefix(f"{type}/") for row in self.all(f"#{type} li")) for type in TYPES}

    def status(self, type: str) -> str:
        """The HTTP status of the app's request for this type."""
        return self.one(f"#{type}").get_attribute("data-status") or ""

    def press(self, selector: str) -> None:
        """Click a button and wait until the browser has left the page."""
        document, element = self.one("html"), self.one(selector)
        try:
            element.click()
        except WebDriverException as error:
            if not aborted(error):  # by the page to which the click leads
                raise
        self.until_left(document)

    def until_left(self, document: WebElement) -> None:
        self.until(lambda: self.one("html").id != document.id)

    def until_at(self, address: str) -> None:
        self.until(lambda: self.browser.current_url.startswith(address) and bool(self.all("body")))

    def reached(self, path: str) -> Walk:
        """Wait until the browser is on a page of the server."""
        self.until_at(f"{self.origin}{path}")
        return self

    def text(self, id: str) -> str:
        return self.one(f"#{id}").text

    def one(self, selector: str) -> WebElement:
        return self._answered(lambda: self.browser.find_element(By.CSS_SELECTOR, selector))

    def all(self, selector: str) -> list[WebElement]:
        return self._answered(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector))

    def _answered(self, ask: Callable[[], T]) -> T:
        """Ask again until the browser is not just replacing the page."""
        found: list[T] = []

        def is_answered() -> bool:
            try:
                found.append(ask())
            except WebDriverException as error:
                if not aborted(error):
                    raise
            return bool(found)

        wait_until(is_answered, "the browser answers about the page")
        return found[0]

    def until(self, reached: Callable[[], bool]) -> None:
        wait = WebDriverWait(self.browser, HANG, 0.02, (StaleElementReferenceException,))
        try:
            wait.until(lambda _: reached())
        except TimeoutException:
            raise AssertionError(f"The browser stayed at {self.browser.current_url}: {self.one('body').text}") from None
