"""Every page of an account has the switch between records, the signed-in person's name and the menu at the top."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.portal.record_environment import RecordPages
from tests.portal.test_record_home import result
from tests.portal.test_record_pages import ACT

PAGES = ("/", "/sharing", "/accept", "/apps", "/account", "/r/invented")


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def offered(page: str) -> list[str]:
    """The addresses of the records in the switch."""
    return re.findall(r'href="(/r/[^"/]+)"', page.partition('class="switch"')[2].partition("</details>")[0])


@pytest.mark.parametrize("path", PAGES)
def test_portal_f2_each_account_page_has_switch_name_and_menu(site: RecordPages, path: str) -> None:
    reader = site.reader("parent-a")
    page = reader.open(path).text
    assert offered(page) == list(reader.records().values()) and len(offered(page)) == 2
    assert "Signed in as Pat Parent" in page
    assert page.index('class="menu"') < page.index("<h1>")


def test_portal_f2_each_record_page_has_the_same_switch_and_says_whose_it_is(site: RecordPages) -> None:
    reader = site.reader("parent-a")
    path = reader.address("Toni")
    for page in (reader.page(path), reader.page(f"{path}/results")):
        assert offered(page) == list(reader.records().values())
        assert "Signed in as Pat Parent" in page and page.index('class="whose"') < page.index("<h1>")
        assert re.search(r'<a href="([^"]+)" aria-current="true">', page.partition('class="switch"')[2])[1] == path  # type: ignore[index]


def test_a_work_account_has_a_menu_and_no_switch(site: RecordPages) -> None:
    page = site.reader("clinician").page("/")
    assert "Your patients" in page and 'class="menu"' in page and 'class="switch"' not in page


def test_portal_f2_3_when_a_grant_ends_the_next_click_finds_no_record(site: RecordPages) -> None:
    proxy, adult = site.reader("proxy-standard"), site.reader("adult")
    path = proxy.address("Alex")
    assert proxy.open(f"{path}/results").status_code == 200
    for _ in range(adult.page("/sharing").count('action="/sharing/end"')):
        assert adult.visitor.send("/sharing", "/sharing/end").status_code == 303
    ended, invented = proxy.open(f"{path}/results"), proxy.open("/r/invented/results")
    assert ended.status_code == 404 and ended.text == invented.text
    assert offered(ended.text) == [] and "Access that someone gave you has ended" in proxy.page("/")


def test_portal_f2_4_a_page_narrows_with_the_12th_birthday(site: RecordPages) -> None:
    """The child's sensitive result: a parent sees it the day before, and not from the birthday on."""
    site.write(result("sensitive", "child", meta={"security": [{"system": ACT, "code": "STD"}]}))
    for instant, seen in (("2030-06-13T12:00:00Z", True), ("2030-06-14T12:00:00Z", False)):
        site.served.at(instant)
        reader = site.reader("parent-a")
        assert ("zz sensitive" in reader.page(f"{reader.address('Charlie')}/results")) is seen


def test_permissions_that_are_kept_end_with_the_level_of_a_grant(site: RecordPages) -> None:
    """The same person in the same session: full access that becomes standard narrows the next page."""
    reader = site.reader("proxy-full")
    path = f"{reader.address('Alex')}/medicines"
    assert all("sertraline" in reader.page(path) for _ in range(2))
    grant = site.served.get(site.served.token(), "Consent/proxy-full-of-adult").json
    grant["category"][2]["coding"][0]["code"] = "standard"
    site.write(grant)
    page = reader.page(path)
    assert "sertraline" not in page and "lisinopril" in page


def test_permissions_that_are_kept_are_those_of_one_person_and_record(site: RecordPages) -> None:
    """Pages of two people and two records in turn: each has its own."""
    full, standard = site.reader("proxy-full"), site.reader("proxy-standard")
    for _ in range(2):
        assert "sertraline" in full.page(f"{full.address('Alex')}/medicines")
        assert "sertraline" not in standard.page(f"{standard.address('Alex')}/medicines")
