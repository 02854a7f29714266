from __future__ import annotations

import pytest

from tests.federation.world import Worlds


@pytest.fixture
def worlds() -> Worlds:
    return Worlds()
