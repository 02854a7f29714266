"""Describes a browser for the list of sessions. Only this description is stored, not the User-Agent header."""

from __future__ import annotations

from typing import Final

from fastapi import Request

# The first match wins: a browser's User-Agent header also contains the names of older browsers.
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
    """Return a description such as ``Firefox on Windows``."""
    header = request.headers.get("user-agent", "")
    browser = next((name for token, name in _BROWSERS if token in header), "Another browser")
    system = next((f" on {name}" for token, name in _SYSTEMS if token in header), "")
    return browser + system
