"""Everything that answers below the FHIR base, in one table.

The CapabilityStatement, the OperationDefinitions, the OpenAPI document and the tables of ``docs/api.md`` are made from it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fhir_server.interactions import batch
from fhir_server.interactions.messages import JSON
from fhir_server.interactions.routing import ROUTES, BodyKind, Route

JSON_DOCUMENT: Final = b"application/json"
BUNDLE: Final = Route("transaction", "POST", (), batch.process_bundle, body="bundle")


class Served(NamedTuple):
    """One thing that answers; the fields are those of :class:`~fhir_server.interactions.routing.Route`.

    ``public``  whether it needs no access token
    """

    code: str
    method: str
    shape: tuple[str, ...]
    media: bytes = JSON
    body: BodyKind = ""
    conditional: bool = False
    definition: str = ""
    is_raw: bool = False
    public: bool = False

    @property
    def template(self) -> str:
        """The path with its placeholders, such as ``/{type}/{id}``."""
        return "/" + "/".join(self.shape)

    @property
    def operation(self) -> str:
        """The name of an operation, with ``$``; "" for other interactions."""
        return next((segment for segment in reversed(self.shape) if segment[:1] == "$"), "")


METADATA: Final = ("metadata",)
SMART_CONFIGURATION: Final = (".well-known", "smart-configuration")
OPENAPI: Final = ("openapi.json",)
DOCUMENTS: Final = (
    Served("capabilities", "GET", METADATA, public=True),
    Served("smart-configuration", "GET", SMART_CONFIGURATION, JSON_DOCUMENT, public=True),
    Served("openapi", "GET", OPENAPI, JSON_DOCUMENT, public=True),
)
"""What needs no token; ``app.py`` builds their contents."""


def _of(route: Route) -> Served:
    return Served(route.code, route.method, route.shape, route.media, route.body, route.conditional, route.definition, route.is_raw)


REGISTRY: Final = (*DOCUMENTS, _of(BUNDLE), *map(_of, ROUTES))


def levels(definition: str) -> frozenset[str]:
    """At which levels the operation with this definition is served: ``system``, ``type``, ``instance``."""
    places = [served.shape for served in REGISTRY if served.definition == definition]
    return frozenset("instance" if "{id}" in shape else "type" if len(shape) > 1 else "system" for shape in places)
