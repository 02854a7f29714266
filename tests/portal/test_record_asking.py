"""People who want it are asked before a new result is shown: until then nothing of it but name and date is on any page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.portal.environment import Form
from tests.portal.record_environment import Reader, RecordPages
from tests.portal.test_record_home import later, report, result
from tests.portal.test_record_pages import all_pages

VALUE = "zz value"


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


def choose(reader: Reader, ask: bool) -> None:
    fields = {"ask": "yes"} if ask else {}
    assert reader.visitor.send("/account", "/account/results", **fields).status_code == 303


def asking(site: RecordPages, username: str = "adult") -> Reader:
    """A person who is asked, and for whom a report with a value came."""
    reader = site.reader(username)
    choose(reader, ask=True)
    later(site)
    site.write(result("fresh"))
    site.write(report("fresh", "fresh"))
    return reader


def show(reader: Reader, page: str) -> None:
    assert reader.visitor.send(page, page).headers["location"] == page


def test_a_new_result_is_on_no_page_until_the_person_asks_for_it(site: RecordPages) -> None:
    reader = asking(site)
    path = reader.address("Alex")
    pages = all_pages(reader, path) | {"report": reader.page(f"{path}/reports/fresh")}
    assert not any(VALUE in page or "zz conclusion" in page for page in pages.values())
    assert "zz fresh" in pages[path] and "zz fresh" in pages[f"{path}/results"], "name and date are there"
    assert "Show the result" in pages["report"] and "Show the result" in pages[f"{path}/results/fresh"]


def test_a_report_is_shown_with_its_values_when_the_person_asks(site: RecordPages) -> None:
    reader = asking(site)
    path = reader.address("Alex")
    show(reader, f"{path}/reports/fresh")
    for page in (f"{path}/reports/fresh", f"{path}/results", f"{path}/results/fresh", path):
        assert VALUE in reader.page(page), page
    assert "zz conclusion" in reader.page(f"{path}/reports/fresh")


def test_a_value_is_shown_alone_when_the_person_asks(site: RecordPages) -> None:
    reader = asking(site)
    path = reader.address("Alex")
    show(reader, f"{path}/results/fresh")
    assert VALUE in reader.page(f"{path}/results/fresh")
    assert "zz conclusion" not in reader.page(f"{path}/results"), "the report was not asked for"


def test_a_trend_waits_for_a_value_that_was_not_asked_for(site: RecordPages) -> None:
    site.write(result("one", valueString="zz one"))
    site.write(result("two", valueString="zz two"))
    reader = asking(site)
    page = reader.page(f"{reader.address('Alex')}/results/one")
    assert "zz one" in page and "zz two" in page and VALUE not in page and "Not shown yet" in page


def test_a_corrected_result_is_asked_about_again(site: RecordPages) -> None:
    reader = asking(site)
    path = reader.address("Alex")
    show(reader, f"{path}/reports/fresh")
    later(site)
    site.write(result("fresh", status="corrected", valueString="zz corrected"))
    assert "zz corrected" not in reader.page(f"{path}/results") + reader.page(f"{path}/results/fresh")


def test_earlier_results_and_readings_from_home_are_shown_at_once(site: RecordPages) -> None:
    site.write(result("early", valueString="zz early"))
    reader = asking(site)
    path = reader.address("Alex")
    later(site)
    vital = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}]
    site.write(result("pulse", category=vital, valueString="zz pulse"))
    assert "zz early" in reader.page(f"{path}/results") and "zz pulse" in reader.page(f"{path}/vital-signs")


def test_nobody_else_is_asked_and_the_choice_can_be_taken_back(site: RecordPages) -> None:
    reader, other = asking(site), site.reader("proxy-full")
    assert VALUE in other.page(f"{other.address('Alex')}/results")
    choose(reader, ask=False)
    assert VALUE in reader.page(f"{reader.address('Alex')}/results")


def test_what_one_account_asked_for_waits_for_the_other(site: RecordPages) -> None:
    other = site.reader("proxy-full")
    choose(other, ask=True)
    reader = asking(site)
    path = reader.address("Alex")
    show(reader, f"{path}/reports/fresh")
    assert VALUE in reader.page(f"{path}/results")
    assert VALUE not in other.page(f"{other.address('Alex')}/results")


def test_portal_f2_5_a_form_of_one_record_is_refused_under_the_key_of_another(site: RecordPages) -> None:
    """The form of the child, sent to the address of the teenager: refused, and nothing is noted."""
    reader = site.reader("parent-a")
    choose(reader, ask=True)
    later(site)
    for patient in ("child", "teen"):
        subject = {"reference": f"Patient/{patient}"}
        code = {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]}
        site.write(result(f"fresh-{patient}", patient, code=code, subject=subject))
    child, teen = (f"{reader.address(name)}/results/fresh-{id}" for name, id in (("Charlie", "child"), ("Toni", "teen")))
    form = Form(reader.open(child).text, child).forms[0]
    assert reader.visitor.post(teen, **form).status_code == 403
    assert reader.visitor.post(teen, **{**form, "record": ""}).status_code == 403
    assert "Show the result" in reader.page(teen)
    assert reader.visitor.post(child, **form).status_code == 303
    assert VALUE in reader.page(child) and "Show the result" in reader.page(teen)


def test_portal_f2_1_two_records_in_two_tabs_do_not_mix(site: RecordPages) -> None:
    """Both forms are open before either is sent; each lands in its own record."""
    reader = site.reader("parent-a")
    choose(reader, ask=True)
    later(site)
    code = {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]}
    for patient in ("child", "teen"):
        site.write(result(f"fresh-{patient}", patient, code=code))
    pages = [f"{reader.address(name)}/results/fresh-{id}" for name, id in (("Charlie", "child"), ("Toni", "teen"))]
    forms = [Form(reader.open(page).text, page).forms[0] for page in pages]
    for page, form in reversed(list(zip(pages, forms, strict=True))):
        assert reader.visitor.post(page, **form).status_code == 303
        assert VALUE in reader.page(page)
    assert re.search(r"Charlie", reader.page(pages[0])) and re.search(r"Toni", reader.page(pages[1]))


def test_absent_and_foreign_results_are_not_there(site: RecordPages) -> None:
    reader = asking(site)
    path = reader.address("Alex")
    form = Form(reader.open(f"{path}/results/fresh").text, f"{path}/results/fresh").forms[0]
    for wrong in ("reports/absent", "results/absent", "results/teen-hiv-screen", "elsewhere/fresh", "reports/a,b"):
        assert reader.visitor.post(f"{path}/{wrong}", **form).status_code == 404, wrong
        assert reader.open(f"{path}/{wrong}").status_code in (404, 200 if wrong == "elsewhere/fresh" else 404), wrong
