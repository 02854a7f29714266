"""The browser tests ask again when Chromium has aborted a question because the page was being replaced, and only then."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.common import NoSuchElementException, WebDriverException

from tests.browser.browser_session import Walk

ABORTED = "aborted by navigation: Inspected target navigated or closed"


class Element:
    """An element whose click is answered with ``error``."""

    def __init__(self, id: str, error: WebDriverException | None = None) -> None:
        self.id = id
        self.clicks = 0
        self._error = error

    def click(self) -> None:
        self.clicks += 1
        if self._error is not None:
            raise self._error


class Browser:
    """Answers each question with the next of ``answers``; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def find_element(self, *_: str) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def walk(*answers: Any) -> Walk:
    return Walk(Browser(*answers), "http://127.0.0.1:1")  # type: ignore[arg-type]


def test_question_aborted_by_navigation_is_asked_again() -> None:
    assert walk(WebDriverException(ABORTED), WebDriverException(ABORTED), Element("new")).one("html").id == "new"


@pytest.mark.parametrize("error", [NoSuchElementException("no such element"), WebDriverException("invalid session id")])
def test_other_errors_are_not_asked_again(error: WebDriverException) -> None:
    with pytest.raises(type(error)):
        walk(error, Element("new")).one("html")


def test_press_ends_on_the_next_page_if_that_page_aborts_the_click() -> None:
    button = Element("button", WebDriverException(ABORTED))
    walk(Element("old"), button, Element("old"), WebDriverException(ABORTED), Element("new")).press("button")
    assert button.clicks == 1


def test_press_fails_at_once_if_the_click_fails() -> None:
    with pytest.raises(WebDriverException, match="not interactable"):
        walk(Element("old"), Element("button", WebDriverException("element not interactable"))).press("button")
