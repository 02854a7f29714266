"""Dates on pages: one format, in the organization's time zone."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from fhir_server.smart.core.context import HOUR
from fhir_server.web import dates
from tests.portal.environment import START, World


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-03-04", "4 March 2026"),
        ("2026-03-04T23:59:59-06:00", "4 March 2026"),
        ("2025-05", "May 2025"),
        ("2025", "2025"),
        ("", ""),
        ("2025-13", ""),
        ("2025-02-30", ""),
        ("soon", ""),
        ("1", ""),
    ],
)
def test_partial_dates_are_formatted_to_their_precision(text: str, words: str) -> None:
    assert dates.format_date(text) == words


def test_instants_are_formatted_in_institution_time_with_zone() -> None:
    chicago = ZoneInfo("America/Chicago")
    assert dates.format_day(date(2026, 11, 21)) == "21 November 2026"
    assert dates.format_instant_date(START, chicago) == "21 November 2026"
    assert dates.format_instant(START, chicago) == "21 November 2026, 09:00 CST"
    assert dates.format_instant(START - 10 * HOUR, chicago) == "20 November 2026, 23:00 CST"


def test_account_page_uses_institution_time_zone(world: World) -> None:
    text = world.signed_in("adult").get("/account").text
    zone = world.made.policy.timezone
    assert zone.key != "UTC"
    assert dates.format_instant(START, zone) in text
    assert "UTC" not in text
