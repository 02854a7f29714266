"""Browsers of three engines, as a person uses them: open an address, type, click."""

from __future__ import annotations

from typing import Any, Protocol

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from tests.waiting import wait_until


class Browser(Protocol):
    """One window."""

    def open(self, address: str) -> None:
        """Go to this address, and wait for its page."""

    def click(self, selector: str) -> None:
        """Click on the element with the mouse."""

    def type(self, selector: str, text: str) -> None:
        """Type into the field."""

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; None if the page is just being replaced."""

    def forget(self) -> None:
        """Delete all cookies of the server whose page is open."""


class DriverBrowser:
    """A browser that a WebDriver of Selenium controls: Chromium, WebKitGTK."""

    def __init__(self, driver: WebDriver) -> None:
        self._driver = driver

    def open(self, address: str) -> None:
        self._driver.get(address)

    def click(self, selector: str) -> None:
        self._driver.find_element(By.CSS_SELECTOR, selector).click()

    def type(self, selector: str, text: str) -> None:
        self._driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def value(self, script: str) -> Any:
        return self._driver.execute_script(f"return {script}")

    def forget(self) -> None:
        self._driver.delete_all_cookies()


class Person:
    """Someone who signs in at ``origin`` and decides about an app, in any engine."""

    def __init__(self, browser: Browser, origin: str, password: str) -> None:
        self._browser, self._origin, self._password = browser, origin, password
        browser.open(f"{origin}/sign-in")
        browser.forget()

    def open(self, address: str) -> Person:
        self._browser.open(address)
        return self

    def sign_in(self, username: str) -> Person:
        self.reached(f"{self._origin}/sign-in")
        self._browser.type("#username", username)
        self._browser.type("#password", self._password)
        return self.click("button.primary")

    def click(self, selector: str) -> Person:
        wait_until(lambda: self._browser.value(f"document.querySelector({selector!r}) !== null"), f"the page has {selector}")
        self._browser.click(selector)
        return self

    def reached(self, address: str) -> str:
        """Wait for a page whose address begins so.  Returns its whole address."""

        def is_there() -> bool:
            at = self._browser.value("document.readyState === 'complete' ? location.href : ''")
            return isinstance(at, str) and at.startswith(address)

        wait_until(is_there, f"the browser is at {address}", every=0.05)
        return str(self._browser.value("location.href"))
