"""The handlers of the SCIM API (RFC 7644 3 and 4): each takes a request that was let in, and returns an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from scim2_models import (
    Context,
    InvalidFilterException,
    ListResponse,
    PatchOp,
    ResponseParameters,
    SearchRequest,
)
from scim2_models.path import CompareOperator, Comparison

from fhir_server.scim import accounts, conversion
from fhir_server.scim.models import MAX_RESULTS, PATH, POLICY, ScimUser, resource_types, schemas, service_provider_config
from fhir_server.smart.accounts import user_index, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext

_DEFAULT_COUNT: Final = 100
_LAST_INDEX: Final = 1_000_000_000  # of a page; stores count in 64 bits
_INTEGERS: Final = ("startIndex", "count")


@dataclass(frozen=True, slots=True)
class ScimRequest:
    """A request that was let in.  ``payload`` is the parsed body; None if it has none."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    id: str = ""
    payload: Any = None


@dataclass(frozen=True, slots=True)
class ScimAnswer:
    """An answer.  ``user`` is the account that was created, changed, removed or read alone."""

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None


class ScimEndpoints:
    """The handlers of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._base = f"{smart.origin}{PATH}"

    async def configuration(self, request: ScimRequest) -> ScimAnswer:
        return ScimAnswer(200, service_provider_config(self._base))

    async def resource_types(self, request: ScimRequest) -> ScimAnswer:
        return _documents(resource_types(self._base), request)

    async def schemas(self, request: ScimRequest) -> ScimAnswer:
        return _documents(schemas(self._base), request)

    async def read(self, request: ScimRequest) -> ScimAnswer:
        user = await accounts.find(self._smart, request.id)
        given = request.headers.get("if-none-match", "")
        if given and accounts.matches(given, user):
            return ScimAnswer(304, None, {"ETag": conversion.version(user)}, user)
        return self._answer(200, user, request, Context.RESOURCE_QUERY_RESPONSE)

    async def list_users(self, request: ScimRequest) -> ScimAnswer:
        """``GET /Users``, and ``POST /Users/.search`` with the same parameters in the body (3.4.2, 3.4.3)."""
        given = request.payload if request.payload is not None else _search_parameters(request.query)
        search = SearchRequest[ScimUser].model_validate(given, scim_policy=POLICY)
        start = min(max(search.start_index or 1, 1), _LAST_INDEX)
        count = max(0, min(_DEFAULT_COUNT if search.count is None else search.count, MAX_RESULTS))
        if search.filter is None:
            total, found = await users.list_page(self._smart.store, start - 1, count)
        else:
            matching = await self._find(search)
            total, found = len(matching), tuple(matching[start - 1 : start - 1 + count])
        shown = [conversion.to_scim(user, self._smart.origin) for user in found]
        answer = ListResponse[ScimUser](total_results=total, start_index=start, items_per_page=len(shown), resources=shown)
        return ScimAnswer(200, answer.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=search))

    async def create(self, request: ScimRequest) -> ScimAnswer:
        resource = ScimUser.model_validate(request.payload, scim_ctx=Context.RESOURCE_CREATION_REQUEST, scim_policy=POLICY)
        user = await accounts.create(self._smart, resource)
        return self._answer(201, user, request, Context.RESOURCE_CREATION_RESPONSE)

    async def replace(self, request: ScimRequest) -> ScimAnswer:
        """``PUT``: role, state, name and links that the request leaves out stay (3.5.1 lets the server choose)."""
        given = ScimUser.model_validate(request.payload, scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST, scim_policy=POLICY)
        states_links = conversion.states_links(request.payload)
        return await self._change(request, lambda current: (given, states_links), Context.RESOURCE_REPLACEMENT_RESPONSE)

    async def patch(self, request: ScimRequest) -> ScimAnswer:
        operations = PatchOp[ScimUser].model_validate(request.payload, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=POLICY)
        edit = partial(_patched, operations, conversion.states_links(request.payload))
        return await self._change(request, edit, Context.RESOURCE_PATCH_RESPONSE)

    async def remove(self, request: ScimRequest) -> ScimAnswer:
        return ScimAnswer(204, user=await accounts.remove(self._smart, request.id, request.headers.get("if-match", "")))

    async def _change(self, request: ScimRequest, edit: accounts.Edit, context: Context) -> ScimAnswer:
        user = await accounts.change(self._smart, request.id, edit, request.headers.get("if-match", ""))
        return self._answer(200, user, request, context)

    def _answer(self, status: int, user: User, request: ScimRequest, context: Context) -> ScimAnswer:
        names = {name: value for name, value in request.query.items() if name in ("attributes", "excludedAttributes")}
        parameters = ResponseParameters[ScimUser].model_validate(names, scim_policy=POLICY)
        resource = conversion.to_scim(user, self._smart.origin)
        location = f"{self._base}/Users/{user.subject}"
        headers = {"ETag": conversion.version(user), "Content-Location" if status == 200 else "Location": location}
        return ScimAnswer(status, resource.model_dump(scim_ctx=context, response_parameters=parameters), headers, user)

    async def _find(self, search: SearchRequest[Any]) -> list[User]:
        """The accounts that a filter asks for.  Raises InvalidFilterException for any but ``eq`` on three attributes."""
        store, node = self._smart.store, search.filter.ast if search.filter else None
        if isinstance(node, Comparison) and node.op == CompareOperator.eq and isinstance(node.value, str) and node.value.isprintable():
            match node.attr_path.attr.lower():
                case "username":
                    user = await users.find(store, node.value)
                case "externalid":
                    user = await user_index.find_by_external_id(store, node.value)
                case "id":
                    user = await user_index.find_by_subject(store, node.value)
                case _:
                    raise InvalidFilterException(detail=_FILTERS)
            return [user] if user else []
        raise InvalidFilterException(detail=_FILTERS)


_FILTERS: Final = 'The filters are: userName eq "...", externalId eq "...", id eq "...".'


def _patched(operations: PatchOp[Any], states_links: bool, current: ScimUser) -> tuple[ScimUser, bool]:
    changed = current.model_copy(deep=True)
    operations.patch(changed, scim_policy=POLICY)
    return changed, states_links


def _search_parameters(query: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a search in a query string.  A number that is none stays text, which is refused."""
    return {name: int(value) if name in _INTEGERS and value.lstrip("-").isdecimal() else value for name, value in query.items()}


def _documents(documents: tuple[dict[str, Any], ...], request: ScimRequest) -> ScimAnswer:
    """Discovery documents, all or by id.  Raises NoSuchUserError for an unknown id."""
    if request.id:
        found = next((each for each in documents if each["id"].lower() == request.id.lower()), None)
        if found is None:
            raise accounts.NoSuchUserError
        return ScimAnswer(200, found)
    listed = {"totalResults": len(documents), "startIndex": 1, "itemsPerPage": len(documents), "Resources": list(documents)}
    return ScimAnswer(200, {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], **listed})
