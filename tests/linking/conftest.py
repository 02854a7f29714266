from __future__ import annotations

import pytest

from tests.linking.environment import Worlds


@pytest.fixture
def worlds() -> Worlds:
    """Two systems, and ``adult`` signed in at ours."""
    made = Worlds()
    made.sign_in()
    return made
