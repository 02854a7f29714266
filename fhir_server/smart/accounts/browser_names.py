"""A browser in words, for the list of sessions: enough for a person to know it again, and no more of it is kept."""

from __future__ import annotations

from typing import Final

from fastapi import Request

# The first that is found in the header names it: browsers call themselves by the names of their forebears too.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "a Mac"),
    ("CrOS", "a Chromebook"),
    ("Linux", "Linux"),
)


def describe_browser(request: Request) -> str:
    """E.g. ``Firefox on Windows``."""
    header = request.headers.get("user-agent", "")
    browser = next((name for sign, name in _BROWSERS if sign in header), "Another browser")
    system = next((f" on {name}" for sign, name in _SYSTEMS if sign in header), "")
    return browser + system
