"""Records the commands that the store sends to MongoDB, so that tests can check queries and not only results."""

from __future__ import annotations

from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent


class Listener(CommandListener):
    """Records every command in order."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Ignored."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Ignored."""

    def of(self, *names: str) -> list[dict[str, Any]]:
        """Return the commands with these names.  A command's name is its first member."""
        return [command for command in self.commands if next(iter(command)) in names]
