"""Whether traces are wanted.  OpenTelemetry's own environment variables say so; without them none of its code is loaded.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fhir_server.observability.traces import Traces

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_MISSING: Final = "Traces need OpenTelemetry's libraries: install fhir-server with the extra opentelemetry, or unset OTEL_*."


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Whether an endpoint or the exporter ``otlp`` is set, and nothing that turns traces off.

    Raises ValueError, with a message for the operator, for an exporter or a protocol that this server does not have.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environment.get(name, "").strip() for name in _ENDPOINTS):
        return False
    if exporter not in ("", "otlp"):
        raise ValueError(f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter!r}.")
    for name in _PROTOCOLS:
        protocol = environment.get(name, "").strip().lower()
        if protocol not in ("", "http/protobuf"):
            raise ValueError(f"{name} must be http/protobuf, not {protocol!r}.")
        if protocol:
            break
    return True


def load_traces(environment: Mapping[str, str]) -> type[Traces] | None:
    """The class, if traces are wanted.  It starts no exporter.

    Raises ValueError, with a message for the operator, if the settings or the libraries do not allow traces.
    """
    if not wants_traces(environment):
        return None
    try:
        from fhir_server.observability.traces import Traces
    except ImportError:
        raise ValueError(_MISSING) from None
    return Traces


def start_traces(environment: Mapping[str, str], types: Iterable[str]) -> Traces | None:
    """Start the exporter of this process, if traces are wanted.  ``types``: the names of R4's resource types.

    Raises what :func:`load_traces` raises.
    """
    traces = load_traces(environment)
    return traces(types) if traces else None
