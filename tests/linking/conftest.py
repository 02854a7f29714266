from __future__ import annotations

import pytest

from tests.linking.environment import Worlds


@pytest.fixture
def worlds() -> Worlds:
    """Two systems, with ``adult`` signed in at this server."""
    made = Worlds()
    made.sign_in()
    return made
