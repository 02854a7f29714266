"""What classes that draw secrets share: the caller, the random source, and what the generator of cases gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random

from tests.noninterference.paired_server import Caller
from tests.noninterference.resource_factory import Recipes


class SecretDraws(ABC):
    """``open``: names of known differences, which are not drawn."""

    caller: Caller
    open: frozenset[str]
    random: Random
    r: Recipes

    @abstractmethod
    def other(self) -> str:
        """Return a patient who is not the caller's."""

    @abstractmethod
    def _moment(self) -> int: ...

    @abstractmethod
    def _id(self) -> str: ...
