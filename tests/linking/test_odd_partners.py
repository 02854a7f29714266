"""Each odd partner system of the table, with the exact words that a person reads."""

from __future__ import annotations

import pytest

from tests.linking.odd_partners import ODD_ORIGIN, OddWorld
from tests.linking.odd_table import HANGING, ODD_PARTNERS, Odd


def _assert_said(odd: Odd, world: OddWorld) -> None:
    outline = world.read(world.linked())
    for title, lines in odd.said.items():
        if title:
            assert outline.section(title) == lines
        else:
            said = [line for line in outline.above if line in lines]
            assert said == lines, outline.above
    assert all(str(request.url).startswith(f"{ODD_ORIGIN}/") for request in world.partner.calls)


@pytest.mark.parametrize("odd", ODD_PARTNERS, ids=[odd.name for odd in ODD_PARTNERS])
def test_person_reads_what_the_odd_partner_did(odd: Odd) -> None:
    _assert_said(odd, OddWorld(odd.instead))


def test_page_says_what_did_not_arrive_in_its_time() -> None:
    _assert_said(HANGING, OddWorld(HANGING.instead, view_seconds=0))
