"""Links between Bundle entries are replaced where they are links, and nowhere else."""

from __future__ import annotations

import pytest

from fhir_server.resources.bundle_links import ABSOLUTE_LINK, replace_links

TARGETS = {"urn:uuid:1": "Patient/p", "Patient/old": "Patient/new"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"reference":"urn:uuid:1"}', b'{"reference":"Patient/p"}'),
        (b'{"url" : "urn:uuid:1", "uri":"urn:uuid:1"}', b'{"url" : "Patient/p", "uri":"Patient/p"}'),
        (b'{"reference":"Patient/old"}', b'{"reference":"Patient/new"}'),
        (b'{"value":"urn:uuid:1"}', b'{"value":"urn:uuid:1"}'),
        (b'{"reference":"urn:uuid:2"}', b'{"reference":"urn:uuid:2"}'),
    ],
)
def test_only_known_links_are_replaced(text: bytes, expected: bytes) -> None:
    assert replace_links(text, TARGETS) == expected


def test_relative_links_are_unchanged_if_only_absolute_ones_match() -> None:
    text = b'[{"reference":"Patient/old"},{"reference":"urn:uuid:1"}]'
    assert replace_links(text, TARGETS, ABSOLUTE_LINK) == b'[{"reference":"Patient/old"},{"reference":"Patient/p"}]'
