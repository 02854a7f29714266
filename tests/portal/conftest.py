from __future__ import annotations

import pytest

from tests.portal.environment import World


@pytest.fixture
def world() -> World:
    return World()
