"""The SCIM resource type User as this server has it, and the discovery documents that describe it (RFC 7643 5 to 7).

The extension has the resources that represent the person.  Whether they exist is not checked: the answers would tell an
administrator of accounts which records there are.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Field
from scim2_models import (
    URN,
    AnyExtension,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    ETag,
    Extension,
    Filter,
    Mutability,
    Patch,
    Required,
    Resource,
    ResourceType,
    Returned,
    Schema,
    ScimPolicy,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

PATH: Final = "/scim/v2"
MAX_RESULTS: Final = 200
EXTENSION: Final = "urn:fhir-server:scim:schemas:2.0:FhirUser"
# Attributes that this server does not have are ignored, as RFC 7644 3.3 allows: identity management systems send what they have.
POLICY: Final = ScimPolicy(unknown=ScimPolicy.Unknown.ignore, remove_value_as_filter=ScimPolicy.RemoveValue.apply)


class Name(ComplexAttribute):
    """The person's name; only the whole of it is stored."""

    formatted: str | None = Field(default=None, description="The name as it is displayed")


class UserRole(ComplexAttribute):
    """The one role of an account."""

    class Value(StrEnum):
        """The roles there are."""

        patient = "patient"
        clinician = "clinician"
        billing = "billing"
        privacy = "privacy"

    value: Annotated[Value | None, Required.true] = Field(default=None, description="The role")


class RelatedPersonLink(ComplexAttribute):
    """A RelatedPerson that is this person: a parent of a child, a proxy of an adult."""

    value: Annotated[str | None, CaseExact.true, Required.true] = Field(default=None, description="The id of the RelatedPerson")


class FhirUser(Extension):
    """The ids of the FHIR resources that represent the person.  ``fhir_user`` is SMART's ``fhirUser`` outside of any record."""

    __schema__ = URN(EXTENSION)

    patient: Annotated[str | None, CaseExact.true] = Field(default=None, description="The id of the person's own Patient")
    practitioner: Annotated[str | None, CaseExact.true] = Field(default=None, description="The id of the Practitioner, for a work account")
    related_persons: list[RelatedPersonLink] | None = Field(default=None, description="The RelatedPersons that are this person")
    fhir_user: Annotated[str | None, CaseExact.true, Mutability.read_only] = Field(
        default=None, description="Type/id of what represents the person alone"
    )


class User(Resource[AnyExtension]):
    """An account.  ``displayName`` and ``name.formatted`` are one name, unless they are given two."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = Field(default=None, description="With which the person signs in")
    name: Name | None = Field(default=None, description="The name; displayName unless it was given another form")
    display_name: str | None = Field(default=None, description="The name that is displayed")
    active: bool | None = Field(default=None, description="False if the account is locked")
    password: Annotated[str | None, Mutability.write_only, Returned.never, CaseExact.true] = Field(
        default=None, description="A new password"
    )
    roles: list[UserRole] | None = Field(default=None, description="The one role of the account; patient if none is given")


ScimUser = User[FhirUser]


@cache
def service_provider_config(base: str) -> dict[str, Any]:
    """The document of ``/ServiceProviderConfig``; ``base`` is the URL of this API."""
    config = ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=MAX_RESULTS),
        change_password=ChangePassword(supported=True),
        sort=Sort(supported=False),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="OAuth 2.0 bearer token",
                description="An access token with the scope system/scim, by client credentials with a signed assertion",
                primary=True,
            )
        ],
    )
    return _document(config, "ServiceProviderConfig", f"{base}/ServiceProviderConfig")


@cache
def resource_types(base: str) -> tuple[dict[str, Any], ...]:
    """The documents of ``/ResourceTypes``."""
    found = ResourceType.from_resource(ScimUser)
    found.description = "Account of a person"
    return (_document(found, "ResourceType", f"{base}/ResourceTypes/User"),)


@cache
def schemas(base: str) -> tuple[dict[str, Any], ...]:
    """The documents of ``/Schemas``."""
    described: tuple[tuple[Schema, str], ...] = (
        (User.to_schema(), "Account of a person"),
        (FhirUser.to_schema(), "The FHIR resources that represent the person"),
    )
    for schema, description in described:
        schema.description = description
    return tuple(_document(schema, "Schema", f"{base}/Schemas/{schema.id}") for schema, _ in described)


def _document(resource: Resource[Any], type: str, location: str) -> dict[str, Any]:
    return {**resource.model_dump(), "meta": {"resourceType": type, "location": location}}
