"""Examines a store and the settings, and changes nothing: for ``fhir-server doctor``, and for commands before they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal, NamedTuple

from fhir_server.audit.buffer_file import abandoned_buffers
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.pending_lines import read_pending
from fhir_server.audit.verification import summary, verify_log_of
from fhir_server.clock import instant_text
from fhir_server.consent import policy as policies
from fhir_server.consent.labeling_version import labeling_digest
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.maintenance.check_references import unreadable_references
from fhir_server.maintenance.store_facts import BackupFact, LabelingFact, find_fact
from fhir_server.settings import Settings
from fhir_server.smart.core.context import DAY, SECOND
from fhir_server.smart.core.key_check import check_key
from fhir_server.store import Store, store_file
from fhir_server.store.inspection import Identity, Inspector, inspect
from fhir_server.writing.indexing_steps import progress
from fhir_server.writing.pending_relabeling import count_pending

_CLOCK_SKEW: Final = 5 * SECOND  # by which the clocks of two servers may differ without a word
_STATES: Final = {
    "missing": "There is no store at {url}. Check FHIR_SERVER_STORE, or make a new store with `fhir-server create-store`.",
    "empty": "{url} holds nothing. Check FHIR_SERVER_STORE, or make a new store with `fhir-server create-store`.",
    "foreign": "{url} holds the data of another program.",
    "incomplete": "{url} holds an interrupted copy or restored backup. Run `fhir-server copy-store` or `fhir-server restore` again.",
}
Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One sentence about one subject.  A ``note`` is for the operator to know; a ``problem`` makes ``doctor`` fail."""

    subject: str
    level: Level
    sentence: str


async def require_store(settings: Settings, *, thorough: bool = False) -> None:
    """Raises ValueError or OSError, with a message for the operator, unless the store exists and is this program's.

    ``thorough`` also looks for damage.
    """
    inspector = inspect(settings.store)
    if inspector is None:
        return
    try:
        await _require_present(inspector, settings.store)
        if not thorough:
            return
        damage = await inspector.find_damage(thorough=False)
        if damage:
            raise ValueError(f"The store is damaged: {damage[0]} Restore a backup; `fhir-server doctor` says more.")
    finally:
        await inspector.close()


async def is_new_store(url: str, *, may_be_incomplete: bool = False) -> bool:
    """Return whether there is no store at this URL yet, or, if that may be, an interrupted restore of one.

    A store in memory is made anew by each process, so there is nothing to make.  Raises ValueError for the data of another program.
    """
    inspector = inspect(url)
    if inspector is None:
        return False
    try:
        identity = await inspector.identify()
        if identity.state == "foreign":
            raise ValueError(_STATES["foreign"].format(url=without_credentials(url)))
        return identity.state in ("missing", "empty") or (may_be_incomplete and identity.state == "incomplete")
    finally:
        await inspector.close()


async def is_without_resources(url: str) -> bool:
    """Return whether the store at this URL, which exists, holds no current resource."""
    inspector = inspect(url)
    if inspector is None:
        return False
    try:
        return await inspector.count_resources() == 0
    finally:
        await inspector.close()


async def _require_present(inspector: Inspector, url: str) -> Identity:
    identity = await inspector.identify()
    if identity.state != "present":
        raise ValueError(_STATES[identity.state].format(url=without_credentials(url)))
    if identity.schema > identity.known_schema:
        raise ValueError(
            f"{without_credentials(url)} was written by a later version of this program"
            f" (schema {identity.schema}, known: {identity.known_schema})."
        )
    return identity


async def examine(settings: Settings, *, backup_days: int | None = None) -> list[Finding]:
    """Return what there is to say about the settings and their store.

    ``backup_days``: a last backup that is older is a problem.  Raises ValueError or OSError, with a message for the operator, if
    the settings or the store do not let the examination begin.
    """
    policy = policies.load(settings.policy, timezone=settings.timezone)
    SensitivityCodes.load(settings.ig_path, settings.codes_path)
    settings.require_key()
    while True:
        inspector = inspect(settings.store)
        if inspector is None:
            return [Finding("store", "note", "memory: holds nothing when the process ends.")]
        try:
            findings = [finding async for finding in _examine(inspector, settings, policy, backup_days)]
            if not inspector.is_outdated():
                return findings
        except (ValueError, OSError):
            if not inspector.is_outdated():
                raise
        finally:
            await inspector.close()


async def _examine(inspector: Inspector, settings: Settings, policy: Policy, backup_days: int | None) -> AsyncIterator[Finding]:
    identity = await _require_present(inspector, settings.store)
    yield Finding("policy", "ok", f"{settings.policy} {policy.version}")
    damage = await inspector.find_damage(thorough=True)
    if damage:
        yield Finding("integrity", "problem", "The store is damaged; restore a backup. " + " ".join(damage))
        return
    yield Finding("integrity", "ok", "no damage found")
    yield _schema(identity)
    if identity.schema < identity.known_schema:
        return  # its content is read as this program writes it
    store, now = inspector.store(), settings.make_clock()()
    async with store.snapshot() as snapshot:
        classes = len(await snapshot.classes())
    resources = await inspector.count_resources()
    level: Level = "ok" if resources else "note"
    yield Finding("store", level, f"{without_credentials(settings.store)}: {resources} resources, {classes} visibility classes")
    yield await _key(store, settings)
    yield await _labels(store, settings, policy, resources)
    yield await _pending(store)
    yield await _indexing(store)
    yield await _audit(store, settings)
    yield _references(await unreadable_references(store))
    yield _clock(await inspector.newest(), now)
    yield await _backup(store, now, backup_days)


def _schema(identity: Identity) -> Finding:
    if identity.schema < identity.known_schema:
        step = f"{identity.schema}; the next start converts the store to {identity.known_schema}. Back it up before."
        return Finding("schema", "note", step)
    return Finding("schema", "ok", str(identity.schema))


async def _key(store: Store, settings: Settings) -> Finding:
    state = await check_key(store, settings.make_clock()(), settings.secret_key, settings.former_secret_key)
    sentences: dict[str, tuple[Level, str]] = {
        "right": ("ok", "FHIR_SERVER_SECRET_KEY is the key of this store"),
        "unknown": ("note", "no secret in this store is encrypted yet"),
        "former": ("note", "Secrets are still encrypted with the former key; run `fhir-server keys reseal`."),
        "wrong": ("problem", "FHIR_SERVER_SECRET_KEY is not the key that the secrets in this store are encrypted with."),
    }
    return Finding("key", *sentences[state])


async def _labels(store: Store, settings: Settings, policy: Policy, resources: int) -> Finding:
    fact = await find_fact(store, LabelingFact)
    if fact is not None and fact.digest == labeling_digest(policy, settings.ig_path, settings.codes_path, settings.search_timezone):
        return Finding("labels", "ok", "of the code lists in use")
    if not resources:
        return Finding("labels", "ok", "there is nothing to label")
    known = "The code lists, the policy or the program have changed since resources were labeled."
    unknown = "It is not recorded with which code lists the resources were labeled."
    return Finding("labels", "problem", f"{known if fact else unknown} Run `fhir-server relabel`.")


async def _indexing(store: Store) -> Finding:
    if sentence := await progress(store):
        return Finding("indexing", "note", sentence)
    return Finding("indexing", "ok", "all search parameters are ready")


async def _pending(store: Store) -> Finding:
    if pending := await count_pending(store):
        sentence = f"About {pending} resources are hidden until their labels follow a change; a running server is doing that."
        return Finding("pending", "note", sentence)
    return Finding("pending", "ok", "no resource waits for its labels")


async def _audit(store: Store, settings: Settings) -> Finding:
    result = await verify_log_of(store, settings)
    if result.count:
        return Finding("audit", "problem", f"The audit log is not what this server wrote: {summary(result)}")
    path = store_file(settings.store)
    left = list(abandoned_buffers(path, ChainKeys.of(settings))) if path else []
    if any(file.damaged for file in left):
        name = next(file.path.name for file in left if file.damaged)
        return Finding("audit", "problem", f"{name} has audit lines that this server did not write. Keep it as evidence.")
    pending = len([line async for line in read_pending(store, ChainKeys.of(settings))])
    if waiting := pending + sum(len(file.entries) for file in left):
        return Finding("audit", "note", f"{waiting} lines of a server that was killed are stored at the next start; {summary(result)}")
    return Finding("audit", "ok", summary(result))


def _references(names: list[str]) -> Finding:
    """About resources from before the server refused malformed references: they are to be corrected where they come from."""
    if not names:
        return Finding("references", "ok", "all can be read")
    return Finding("references", "note", f"{len(names)} resources have one that cannot be read or followed, the first {names[0]}")


def _clock(newest: int, now: int) -> Finding:
    if newest > now + _CLOCK_SKEW:
        seconds = (newest - now) // SECOND
        return Finding("clock", "problem", f"The clock is {seconds} seconds behind the newest version, of {instant_text(newest)}.")
    return Finding("clock", "ok", instant_text(now))


async def _backup(store: Store, now: int, days: int | None) -> Finding:
    fact = await find_fact(store, BackupFact)
    if fact is None:
        return Finding("backup", "note" if days is None else "problem", "`fhir-server backup` has never run on this store.")
    age = max(0, now - fact.at)
    is_late = days is not None and age > days * DAY
    return Finding("backup", "problem" if is_late else "ok", f"the last one is {age // DAY} days old, of {instant_text(fact.at)}")


def without_credentials(url: str) -> str:
    """The URL of a store without its user and password."""
    scheme, slashes, rest = url.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"
