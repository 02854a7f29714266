"""What MongoDB's failures mean: which are of the moment, what is worth doing again, and what an operator is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from fhir_server.errors import Problem

P = ParamSpec("P")
T = TypeVar("T")

BUSY: Final = "The server is busy; try again."

_PATIENCE: Final = 30.0  # seconds in which the elections that such a command runs into must be over
_PAUSE: Final = 0.2
_UNAUTHORIZED: Final = 13
_UNAUTHENTICATED: Final = (18, 8000)
_INDEX_DIFFERS: Final = (85, 86)
# Failures of the moment that have no class or label of their own in the driver: time limits, conflicts, elections, lost
# snapshots and cursors, and what a mongos says of a shard that cannot be reached.
_PASSING: Final = frozenset({6, 7, 43, 50, 64, 89, 91, 112, 133, 134, 175, 189, 225, 237, 239, 246, 251, 262, 11600, 11601, 11602})


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """Raise Problem ``busy`` for what a later attempt may well do: no primary now, time is up, the snapshot is too old."""
    try:
        yield
    except PyMongoError as error:
        if passing(error):
            raise Problem("busy", BUSY) from error
        raise


def passing(error: PyMongoError) -> bool:
    """Whether the failure is one of the moment."""
    if isinstance(error, (ConnectionFailure, NotPrimaryError, ExecutionTimeout, WTimeoutError)):
        return True
    if error.has_error_label("TransientTransactionError") or error.has_error_label("RetryableWriteError"):
        return True
    if isinstance(error, BulkWriteError):  # which has no code of its own
        return not error.details["writeErrors"] and all(one["code"] in _PASSING for one in error.details["writeConcernErrors"])
    return isinstance(error, OperationFailure) and error.code in _PASSING


def persistent(step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """What may be done twice, for a command of the operator: begun again until no election cuts it off.

    Raises OSError if nothing answers, or no member stays primary.
    """

    @wraps(step)
    async def done(*args: P.args, **kwargs: P.kwargs) -> T:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                async with answered():
                    return await step(*args, **kwargs)
            except Problem as problem:
                cause = problem.__cause__
                if problem.kind != "busy":
                    raise
                if isinstance(cause, ServerSelectionTimeoutError) or time.monotonic() > end:
                    raise _unreachable(cause) from None
            await asyncio.sleep(_PAUSE)

    return done


def for_operator(error: PyMongoError, database: str) -> Exception:
    """What the operator can do about a failure that will not pass: ValueError, or OSError if nothing can be asked at all."""
    if isinstance(error, ConfigurationError):
        return _unreachable(error)
    code = error.code if isinstance(error, OperationFailure) else None
    if code == _UNAUTHORIZED:
        return ValueError(
            f"The user of FHIR_SERVER_STORE lacks rights on the database {database}: grant it the role readWrite there"
            f' (in mongosh: db.getSiblingDB("admin").grantRolesToUser(USER, [{{role: "readWrite", db: "{database}"}}])).'
        )
    if code in _UNAUTHENTICATED:
        return ValueError("MongoDB refuses the user or password in FHIR_SERVER_STORE (the URL may need authSource=admin).")
    if code in _INDEX_DIFFERS:
        return ValueError(f"An index of the database {database} is not as this program makes it; drop it: {error}")
    return error


def _unreachable(error: BaseException | None) -> OSError:
    return OSError(f"The MongoDB of FHIR_SERVER_STORE cannot be reached: {error}")
