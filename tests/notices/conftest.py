from __future__ import annotations

import pytest

from tests.notices.mailbox import Mailbox, with_mail
from tests.smart.environment import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def mailbox(world: World) -> Mailbox:
    return with_mail(world)
