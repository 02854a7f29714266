"""The topics of topic-based Subscriptions (https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/topic-based-subscriptions.html).

Each is about one type: its resources are created, updated or deleted, as the subscriber's histories show it.  R4 has no resource for a
topic; as the guide says, the CapabilityStatement lists the topics by an extension of ``Subscription``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

GUIDE: Final = "http://hl7.org/fhir/uv/subscriptions-backport"
_CANONICAL: Final = f"{GUIDE}/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
_BASE: Final = "https://fhir-server.example/ig/SubscriptionTopic"
_TYPES: Final = ("Patient", "Observation", "MedicationStatement", "Appointment", "Account", "RelatedPerson")

TOPICS: Final[Mapping[str, str]] = MappingProxyType({f"{_BASE}/{type}": type for type in _TYPES})
"""Canonical URL of a topic -> the type that it is about."""


def topic_extensions() -> list[dict[str, Any]]:
    """The extensions by which the CapabilityStatement names the topics."""
    return [{"url": _CANONICAL, "valueCanonical": url} for url in TOPICS]
