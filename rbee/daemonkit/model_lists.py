"""Describe one model in the lists of compatible interfaces (Ollama's are in `ollama_lists`). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbee.contracts.models import Capability, ModelCard, ModelMeta, ModelStatus


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
