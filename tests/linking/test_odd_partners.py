"""Each odd partner system of the table, with the exact words that a person reads."""

from __future__ import annotations

import pytest

from tests.linking.odd_partners import ODD_ORIGIN, OddWorld
from tests.linking.odd_table import ODD_PARTNERS, Odd


@pytest.mark.parametrize("odd", ODD_PARTNERS, ids=[odd.name for odd in ODD_PARTNERS])
def test_person_reads_what_the_odd_partner_did(odd: Odd) -> None:
    world = OddWorld(odd.instead)
    outline = world.read(world.linked())
    for title, lines in odd.said.items():
        if title:
            assert outline.section(title) == lines
        else:
            said = [line for line in outline.above if line in lines]
            assert said == lines, outline.above
    assert all(str(request.url).startswith(f"{ODD_ORIGIN}/") for request in world.partner.calls)
