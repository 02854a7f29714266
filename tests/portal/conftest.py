from __future__ import annotations

import pytest

from tests.portal.world import World


@pytest.fixture
def world() -> World:
    return World()
