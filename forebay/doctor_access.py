"""The doctor's look at who could come in: the rules, what verifies tokens, and the keys."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from forebay.access.errors import AccessSetupError
from forebay.access.keys import ApiKey
from forebay.access.opening import open_keys, token_source
from forebay.access.setup import TokenSetup
from forebay.config import Settings, SettingsError
from forebay.core.errors import KeysUnavailableError, QueueUnavailableError
from forebay.findings import Finding, Verdict
from forebay.queue.errors import QueueNotRunningError, QueueSetupError
from forebay.queue_here import opened_queue

SOON_DAYS = 14
_DAY_S = 86_400.0
_NAME = "access"
_MAKE = "Make one: forebay keys create NAME"


def check_access(settings: Settings) -> Finding:
    """Look at who could come in if a server began with these settings."""
    try:
        settings.check_door()
        setup = settings.access_setup(settings.data_dir, settings.host)
    except (SettingsError, AccessSetupError) as error:
        return Finding(_NAME, Verdict.BAD, str(error), "Correct the settings that it names.")
    if settings.auth == "none":
        return _open_to_all(settings.host, on_loopback=setup.rules.loopback_only)
    found = []
    if setup.tokens is not None:
        found.append(_tokens(setup.tokens))
    if setup.takes_keys:
        found.append(_keys(settings))
    return _worst(found)


def _open_to_all(host: str, *, on_loopback: bool) -> Finding:
    if not on_loopback:
        return Finding(
            _NAME,
            Verdict.WARN,
            f"anyone who reaches {host} may use the model (auth is none)",
            "Set auth=keys, unless something in front of the server asks who comes.",
        )
    found = f"anyone on this machine, by {host}; administration needs a key"
    return Finding(_NAME, Verdict.GOOD, found)


def _tokens(setup: TokenSetup) -> Finding:
    try:
        asyncio.run(_find_a_key(setup))
    except AccessSetupError as error:
        return Finding(_NAME, Verdict.BAD, str(error), "Correct the jwt_ settings.")
    except KeysUnavailableError:
        return Finding(
            _NAME,
            Verdict.WARN,
            f"no keys come from {setup.jwks_url}: no token can be verified",
            "See that jwt_jwks_url answers from this machine with a JSON Web Key Set.",
        )
    return Finding(_NAME, Verdict.GOOD, f"tokens of {setup.rules.issuer}")


async def _find_a_key(setup: TokenSetup) -> None:
    async with AsyncExitStack() as stack:
        await (await token_source(setup, stack)).find(None)


def _keys(settings: Settings) -> Finding:
    if not settings.pepper_file(settings.data_dir).expanduser().exists():
        return Finding(_NAME, Verdict.WARN, "no key was ever made: nobody can come in", _MAKE)
    try:
        return _judged(asyncio.run(_listed(settings)))
    except QueueNotRunningError:
        return Finding(_NAME, Verdict.GOOD, "keys; they can be looked at while the server runs")
    except (AccessSetupError, QueueSetupError) as error:
        mend = getattr(error, "mend", "") or "Restore the file, or: forebay keys clear --yes"
        return Finding(_NAME, Verdict.BAD, str(error), mend)
    except QueueUnavailableError as error:
        return Finding(_NAME, Verdict.WARN, f"the keys cannot be read: {error}", "See queue above.")


async def _listed(settings: Settings) -> list[ApiKey]:
    async with opened_queue(settings) as opened:
        place, pepper = opened.places[0], settings.pepper_file(settings.data_dir)
        return list(await (await open_keys(pepper, place.redis, place.name)).list_keys())


def _judged(keys: list[ApiKey]) -> Finding:
    now_s = time.time()
    live = [one for one in keys if one.is_live(now_s)]
    ended = len(keys) - len(live)
    told = f"{len(live)} good keys" + (f", {ended} that have ended" if ended else "")
    if not live:
        return Finding(_NAME, Verdict.WARN, f"{told}: nobody can come in with one", _MAKE)
    soon = [one for one in live if _ends_within(one, now_s + SOON_DAYS * _DAY_S)]
    if soon:
        names = ", ".join(f"{one.label} ({one.key_id})" for one in soon[:5])
        told += f"; {len(soon)} end within {SOON_DAYS} days: {names}"
        return Finding(_NAME, Verdict.WARN, told, "Replace them: forebay keys rotate ID")
    return Finding(_NAME, Verdict.GOOD, told)


def _ends_within(key: ApiKey, until_s: float) -> bool:
    return key.expires_s is not None and key.expires_s < until_s


def _worst(found: list[Finding]) -> Finding:
    """Return one finding of several: the worst verdict, and what each of them found."""
    order = (Verdict.GOOD, Verdict.WARN, Verdict.BAD)
    told = "; ".join(one.found for one in found)
    mend = " ".join(one.mend for one in found if one.mend)
    return Finding(_NAME, max((one.verdict for one in found), key=order.index), told, mend)
