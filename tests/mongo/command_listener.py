"""Records the commands that the store sends to MongoDB, for tests of queries rather than of results."""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent


class Listener(CommandListener):
    """Every command sent, in order."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Of no interest."""

    def of(self, *names: str) -> list[dict[str, Any]]:
        """The commands of these names (a command's name is its first member)."""
        return [command for command in self.commands if next(iter(command)) in names]
