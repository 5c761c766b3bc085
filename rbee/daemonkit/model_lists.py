"""Describe one model in the lists of every compatible interface: OpenAI's, llama-server's, Ollama's. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from rbee.contracts.models import Capability, ModelCard, ModelMeta, ModelStatus
from rbee.contracts.ollama import OllamaDetails, RunningModel, ShownModel, TaggedModel, timestamp

_OLLAMA_WORDS: Final[dict[Capability, str]] = {"embeddings": "embedding"}
_NEVER: Final = 253_402_300_799.0  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model by one of its names; what is not known is None or empty.

    Args:
        created: seconds since the epoch.
        context_length: how many tokens a request may have, with its answer.
        train_context: how many tokens the model was made for.
    """

    name: str
    created: float
    state: Literal["unloaded", "loading", "loaded"] = "unloaded"
    size_bytes: int | None = None
    sha256: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    train_context: int | None = None
    capabilities: tuple[Capability, ...] = ()

    def card(self) -> ModelCard:
        """Return it for `/v1/models`."""
        return ModelCard(
            id=self.name,
            created=int(self.created),
            context_length=self.context_length,
            meta=ModelMeta(n_ctx=self.context_length, n_ctx_train=self.train_context, size=self.size_bytes),
            capabilities=list(self.capabilities),
            status=ModelStatus(value=self.state),
        )

    def tagged(self) -> TaggedModel:
        """Return it for `/api/tags`."""
        return TaggedModel(
            name=self.name,
            model=self.name,
            modified_at=timestamp(self.created),
            size=self.size_bytes or 0,
            digest=self.sha256 or "",
            details=self._details(),
            capabilities=self._ollama_capabilities(),
        )

    def running(self, *, expires: float | None, device_bytes: int) -> RunningModel:
        """Return it for `/api/ps`: loaded until *expires*, in seconds since the epoch, with so many bytes on a GPU."""
        return RunningModel(
            name=self.name,
            model=self.name,
            size=self.size_bytes or 0,
            digest=self.sha256 or "",
            details=self._details(),
            expires_at=timestamp(_NEVER if expires is None else expires),
            size_vram=device_bytes,
            context_length=self.context_length or 0,
        )

    def shown(self, *, template: str = "") -> ShownModel:
        """Return it for `/api/show`; the context length that clients read there is that of a request."""
        kind = self.architecture or "unknown"
        lengths = {f"{kind}.context_length": self.context_length or self.train_context}
        return ShownModel(
            template=template,
            details=self._details(),
            model_info={
                "general.architecture": kind,
                "general.basename": self.name,
                **{name: length for name, length in lengths.items() if length is not None},
            },
            capabilities=self._ollama_capabilities(),
            modified_at=timestamp(self.created),
        )

    def _details(self) -> OllamaDetails:
        family = self.architecture or ""
        return OllamaDetails(
            family=family, families=[family] if family else [], quantization_level=self.quantization or ""
        )

    def _ollama_capabilities(self) -> list[str]:
        return [_OLLAMA_WORDS.get(one, one) for one in self.capabilities]
