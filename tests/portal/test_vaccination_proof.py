"""The pages with proof of vaccination show the cards that an app gets, as codes that verifiers read, and as files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.portal.record.health_cards import MOST_IN_A_CODE, digits, qr_code
from tests.interactions.health_card_verifier import from_digits, resources, verified
from tests.interactions.test_health_cards import COVID, IG, immunization, with_level
from tests.portal.qr_reader import text_in
from tests.portal.record_environment import Reader, RecordPages
from tests.smart.environment import Browser

PAGE = "vaccination-proof"
OPERATION = "$health-cards-issue?credentialType=Immunization"


@pytest.fixture
def site() -> Iterator[RecordPages]:
    site = RecordPages()
    yield site
    site.served.close()


@pytest.fixture
def adult(site: RecordPages) -> Reader:
    return site.reader("adult")


def cards_of(site: RecordPages, user: str, patient: str) -> list[str]:
    """The cards that an app gets."""
    answer = site.served.get(site.served.app_token(user, patient), f"Patient/{patient}/{OPERATION}")
    return [one["valueString"] for one in answer.json.get("parameter", ()) if one["name"] == "verifiableCredential"]


def published(site: RecordPages) -> Any:
    """The keys, from where every verifier takes them."""
    answer = Browser(site.app).get("/.well-known/jwks.json")
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
    return answer.json()


def links(page: str) -> list[str]:
    return re.findall(rf'<a href="(/r/[^"]+/{PAGE}/[^"/]+)">Show or print', page)


def test_f12_1_each_page_and_each_file_has_a_card_that_an_app_gets(site: RecordPages, adult: Reader) -> None:
    expected, keys = cards_of(site, "adult", "adult"), published(site)
    addresses = links(adult.page(f"{adult.address('Alex')}/{PAGE}"))
    assert len(addresses) == len(expected) > 0
    for address, card in zip(addresses, expected, strict=True):
        file = adult.open(f"{address}/file")
        assert file.headers["content-type"] == "application/smart-health-card"
        assert file.headers["content-disposition"].endswith('.smart-health-card"')
        assert file.json() == {"verifiableCredential": [card]} and verified(card, keys)


def test_f12_5_the_qr_code_decodes_to_the_card(site: RecordPages, adult: Reader) -> None:
    expected = cards_of(site, "adult", "adult")
    shown = []
    for address in links(adult.page(f"{adult.address('Alex')}/{PAGE}")):
        page = adult.page(address)
        [svg] = re.findall(r"<svg[^>]*picture.*?</svg>", page, re.DOTALL)
        shown.append(from_digits(text_in(svg)))
        assert "Alex Adult" in page and "9 March 1984" in page
    assert shown == expected


def test_a_card_that_is_too_large_for_a_code_says_so_and_can_be_downloaded(site: RecordPages, adult: Reader) -> None:
    for number in range(60):
        site.write(
            immunization(
                f"flu-{number}", "141", occurrenceDateTime=f"20{number // 3 + 1:02}-10-{number % 28 + 1:02}", lotNumber=f"X{number**5}"
            )
        )
    path = f"{adult.address('Alex')}/{PAGE}/influenza"
    page = adult.page(path)
    assert "too many vaccinations for a QR code" in page and "picture" not in page
    [card] = adult.open(f"{path}/file").json()["verifiableCredential"]
    assert len(card) > MOST_IN_A_CODE and len(resources(verified(card, published(site)))) == 62
    assert "QR code of the card" in adult.page(f"{adult.address('Alex')}/{PAGE}/hpv"), "the control"


def test_the_longest_card_that_fits_has_a_code_of_the_size_that_the_guide_allows() -> None:
    assert qr_code("e" * MOST_IN_A_CODE).version == 22


def test_a_trial_says_that_its_cards_are_not_for_real_use(site: RecordPages, adult: Reader) -> None:
    path = f"{adult.address('Alex')}/{PAGE}"
    for page in (adult.page(path), adult.page(links(adult.page(path))[0])):
        assert "not for real use" in page


def test_f12_6_a_proxy_for_visits_is_told_that_the_access_does_not_include_cards(site: RecordPages) -> None:
    proxy = site.reader("proxy-standard")
    path = f"{proxy.address('Alex')}/{PAGE}"
    address = links(proxy.page(path))[0]
    with_level(site.served, "scheduling")
    assert "does not include proof of vaccination" in proxy.page(path)
    assert {proxy.open(one).status_code for one in (address, f"{address}/file", f"{path}/nothing")} == {404}


def test_f12_4_the_pages_of_a_parent_are_those_of_a_record_without_the_vaccine(site: RecordPages) -> None:
    twin = RecordPages()
    mark = {"url": f"{IG}/StructureDefinition/minor-consented", "valueBoolean": True}
    site.write(immunization("alone", COVID, "teen", extension=[mark]))
    readers = [one.reader("parent-a") for one in (site, twin)]
    paths = [f"{reader.address('Toni')}/{PAGE}" for reader in readers]
    keys = [re.sub(r"^/r/([^/]+)/.*", r"\1", path) for path in paths]
    pages = [reader.page(path).replace(key, "KEY") for reader, path, key in zip(readers, paths, keys, strict=True)]
    assert pages[0] == pages[1] and "COVID" not in pages[0] and links(pages[0])
    assert readers[0].open(f"{paths[0]}/covid-19").status_code == 404
    twin.served.close()


def test_a_record_without_such_vaccinations_says_what_a_card_has(site: RecordPages) -> None:
    for row in site.served.get(site.served.token(), "Immunization?patient=child").json["entry"]:
        site.write({**row["resource"], "status": "entered-in-error"})
    parent = site.reader("parent-a")
    assert "no vaccination here that a card could prove" in parent.page(f"{parent.address('Charlie')}/{PAGE}")


def test_the_menu_of_every_record_leads_to_it(adult: Reader) -> None:
    path = adult.address("Alex")
    assert f'href="{path}/{PAGE}"' in adult.page(path) and f'href="{path}/{PAGE}"' in adult.page(f"{path}/results")


def test_the_page_names_vaccines_as_the_record_does(adult: Reader) -> None:
    page = adult.page(f"{adult.address('Alex')}/{PAGE}")
    assert "Influenza, seasonal, injectable, preservative free" in page and "Diphtheria, Tetanus, Whooping cough" in page


def test_a_card_has_two_digits_for_each_character() -> None:
    text = "eyJ6-_.aZ09"
    assert re.fullmatch(r"[0-9]{22}", digits(text)) and from_digits("shc:/" + digits(text)) == text


def test_an_address_that_is_no_card_and_one_of_another_account_are_the_same(site: RecordPages, adult: Reader) -> None:
    other = site.reader("parent-a")
    address = links(adult.page(f"{adult.address('Alex')}/{PAGE}"))[0]
    assert json.dumps(other.open(address).status_code) == "404"
