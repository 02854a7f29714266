from __future__ import annotations

import pytest

from tests.federation.environment import Worlds


@pytest.fixture
def worlds() -> Worlds:
    return Worlds()
