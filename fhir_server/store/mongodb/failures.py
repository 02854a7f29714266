"""Classifies MongoDB's errors: which are transient, which commands to repeat, and what the operator can do."""

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

_RETRY_SECONDS: Final = 30.0  # how long an operator's command waits for elections to end
_PAUSE: Final = 0.2
_UNAUTHORIZED: Final = 13
_UNAUTHENTICATED: Final = (18, 8000)
_INDEX_DIFFERS: Final = (85, 86)
# Transient errors without a class or label of their own in the driver: time limits, conflicts, elections, lost snapshots
# and cursors, and what a mongos reports when it cannot reach a shard.
_TRANSIENT_CODES: Final = frozenset({6, 7, 43, 50, 64, 89, 91, 112, 133, 134, 175, 189, 225, 237, 239, 246, 251, 262, 11600, 11601, 11602})


@asynccontextmanager
async def busy_if_transient() -> AsyncIterator[None]:
    """Raise Problem ``busy`` instead of a transient error: no primary, a time limit, a snapshot that is too old."""
    try:
        yield
    except PyMongoError as error:
        if is_transient(error):
            raise Problem("busy", BUSY) from error
        raise


def is_transient(error: PyMongoError) -> bool:
    """Return whether a later attempt may succeed."""
    if isinstance(error, (ConnectionFailure, NotPrimaryError, ExecutionTimeout, WTimeoutError)):
        return True
    if error.has_error_label("TransientTransactionError") or error.has_error_label("RetryableWriteError"):
        return True
    if isinstance(error, BulkWriteError):  # has no code of its own
        return not error.details["writeErrors"] and all(
            concern["code"] in _TRANSIENT_CODES for concern in error.details["writeConcernErrors"]
        )
    return isinstance(error, OperationFailure) and error.code in _TRANSIENT_CODES


def retried(step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Decorate a step of an operator's command: repeat it until no election interrupts it.  The step must be idempotent.

    The decorated step raises OSError if no server responds, or no member stays primary.
    """

    @wraps(step)
    async def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        end = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                async with busy_if_transient():
                    return await step(*args, **kwargs)
            except Problem as problem:
                cause = problem.__cause__
                if problem.kind != "busy":
                    raise
                if isinstance(cause, ServerSelectionTimeoutError) or time.monotonic() > end:
                    raise _unreachable(cause) from None
            await asyncio.sleep(_PAUSE)

    return repeat


def operator_error(error: PyMongoError, database: str) -> Exception:
    """Return an error that tells the operator what to do about a lasting failure: a ValueError, or OSError without a connection."""
    if isinstance(error, ConfigurationError):
        return _unreachable(error)
    code = error.code if isinstance(error, OperationFailure) else None
    if code == _UNAUTHORIZED:
        return ValueError(
            f"The user of FHIR_SERVER_STORE lacks rights on the database {database}: grant it the role readWrite there"
            f' (in mongosh: db.getSiblingDB("admin").grantRolesToUser(USER, [{{role: "readWrite", db: "{database}"}}])).'
        )
    if code in _UNAUTHENTICATED:
        return ValueError("MongoDB rejects the user or password in FHIR_SERVER_STORE (the URL may need authSource=admin).")
    if code in _INDEX_DIFFERS:
        return ValueError(f"An index of the database {database} differs from what this program creates. Drop the index: {error}")
    return error


def _unreachable(error: BaseException | None) -> OSError:
    return OSError(f"The MongoDB of FHIR_SERVER_STORE cannot be reached: {error}")
