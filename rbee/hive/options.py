"""Decide how a worker is run: what is asked for it goes before the settings of the hive. Pure."""

from __future__ import annotations

from typing import Final

from rbee.contracts.devices import Backend
from rbee.contracts.engine import conflict
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import Keep, WorkerOptions
from rbee.errors import RbeeError
from rbee.hive.memory import LoadOptions
from rbee.hive.settings import HiveSettings

_CONFLICTING: Final = ("cache_type", "flash_attention")


def load_options(
    asked: WorkerOptions, settings: HiveSettings, backend: Backend, *, longest: int | None = None
) -> LoadOptions:
    """Return the options of one load on *backend*; the context is at most *longest*, in tokens.

    Raises RbeeError INVALID_REQUEST where an option that is asked for conflicts with a setting of the hive.
    """
    flash = settings.flash_attention if asked.flash_attention is None else asked.flash_attention
    cache_type = asked.cache_type or settings.cache_type
    if conflict(cache_type, flash_attention=flash):
        raise _refusal(asked, settings)
    context_length = asked.context_length or settings.context_length
    return LoadOptions(
        backend,
        asked.slots or settings.slots,
        min(context_length, longest or context_length),
        cache_type=cache_type,
        flash_attention=flash,
        prompt_batch=asked.prompt_batch or settings.prompt_batch,
        speculate=settings.speculate if asked.speculate is None else asked.speculate,
    )


def idle_time(keep: Keep | None, idle_timeout_s: float) -> float | None:
    """Return how long an unused worker stays, in seconds, by default that of the hive; None means for ever."""
    return None if keep == "always" else keep or idle_timeout_s


def _refusal(asked: WorkerOptions, settings: HiveSettings) -> RbeeError:
    """Return the error for a conflict, which names the option that is asked for and the setting that it meets."""
    option = next(name for name in _CONFLICTING if getattr(asked, name) is not None)
    (setting,) = (name for name in _CONFLICTING if name != option)
    wanted, here = str(getattr(asked, option)).lower(), str(getattr(settings, setting)).lower()
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{option} {wanted} conflicts with {setting} {here} in the settings of this machine's hive: "
        "cache_type q8_0 needs flash attention.",
        details={option: getattr(asked, option), f"hive_{setting}": getattr(settings, setting)},
        hint=f"Leave {option} out, or ask for another {setting} with it.",
        param=option,
    )
