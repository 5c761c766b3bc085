"""Describe one model in Ollama's lists. Pure."""

from __future__ import annotations

from typing import Final

from rbee.contracts.models import Capability
from rbee.contracts.ollama import OllamaDetails, RunningModel, ShownModel, TaggedModel, timestamp
from rbee.daemonkit.model_lists import ListedModel

_WORDS: Final[dict[Capability, str]] = {"embeddings": "embedding"}
_NEVER: Final = 253_402_300_799.0  # the end of the year 9999


def tagged(model: ListedModel) -> TaggedModel:
    """Return a model for `/api/tags`."""
    return TaggedModel(
        name=model.name,
        model=model.name,
        modified_at=timestamp(model.created),
        size=model.size_bytes or 0,
        digest=model.sha256 or "",
        details=_details(model),
        capabilities=_capabilities(model),
    )


def running(model: ListedModel, *, expires: float | None, device_bytes: int) -> RunningModel:
    """Return a model for `/api/ps`: loaded until *expires*, in seconds since the epoch, with so many bytes on GPUs."""
    return RunningModel(
        name=model.name,
        model=model.name,
        size=model.size_bytes or 0,
        digest=model.sha256 or "",
        details=_details(model),
        expires_at=timestamp(_NEVER if expires is None else expires),
        size_vram=device_bytes,
        context_length=model.context_length or 0,
    )


def shown(model: ListedModel, *, template: str = "") -> ShownModel:
    """Return a model for `/api/show`; the context length that clients read there is that of a request."""
    kind = model.architecture or "unknown"
    length = model.context_length or model.train_context
    info: dict[str, str | int] = {"general.architecture": kind, "general.basename": model.name}
    return ShownModel(
        template=template,
        details=_details(model),
        model_info=info if length is None else {**info, f"{kind}.context_length": length},
        capabilities=_capabilities(model),
        modified_at=timestamp(model.created),
    )


def _details(model: ListedModel) -> OllamaDetails:
    family = model.architecture or ""
    return OllamaDetails(
        family=family, families=[family] if family else [], quantization_level=model.quantization or ""
    )


def _capabilities(model: ListedModel) -> list[str]:
    return [_WORDS.get(one, one) for one in model.capabilities]
