"""The requests of llama-server's clients to the routes that only it has: `/tokenize`, `/apply-template` and others."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.openai import OpenModel, Text, TokenId
from rbee.contracts.workers import MAX_MODEL_CHARS


class TokenizeRequest(OpenModel):
    """`POST /tokenize`: `parse_special` takes the names of control tokens for these tokens."""

    model: str | None = Field(default=None, max_length=MAX_MODEL_CHARS)
    content: Text
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class TokenPiece(BaseModel):
    """A token with its text, or its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class Tokenized(BaseModel):
    """The answer to `POST /tokenize`."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeRequest(OpenModel):
    """`POST /detokenize`."""

    model: str | None = Field(default=None, max_length=MAX_MODEL_CHARS)
    tokens: list[TokenId] = Field(max_length=1_000_000)


class Detokenized(BaseModel):
    """The answer to `POST /detokenize`."""

    content: str


class RenderedPrompt(BaseModel):
    """The answer to `POST /apply-template`, whose request is that of a chat, which is not answered."""

    prompt: str


class GenerationSettings(BaseModel):
    """What a request is generated with unless it says otherwise; `n_ctx` is what one slot holds, in tokens."""

    n_ctx: int
    params: dict[str, float | int | bool | list[str]] = Field(default_factory=dict)


class Modalities(BaseModel):
    """What a model takes beside text."""

    vision: bool = False
    audio: bool = False


class Props(BaseModel):
    """`GET /props` of one model."""

    model_config = ConfigDict(protected_namespaces=())

    default_generation_settings: GenerationSettings
    total_slots: int
    model_alias: str
    model_path: str
    chat_template: str
    chat_template_caps: dict[str, bool] = Field(default_factory=dict)
    modalities: Modalities = Modalities()
    build_info: str
    is_sleeping: bool = False


class RouterProps(BaseModel):
    """`GET /props` of a queen without a model: what tells a client of llama-server's that there are several."""

    model_config = ConfigDict(protected_namespaces=())

    role: Literal["router"] = "router"
    models_autoload: bool = True
    model_alias: str = "rbee"
    model_path: str = "none"
    default_generation_settings: GenerationSettings = GenerationSettings(n_ctx=0)
    build_info: str


class MaybeModelQuery(BaseModel):
    """The query of `GET /props`, and of `GET /slots`, which needs a model."""

    model: str | None = Field(default=None, min_length=1, max_length=MAX_MODEL_CHARS)


class SlotState(BaseModel):
    """One slot in `GET /slots`."""

    id: int
    n_ctx: int
    is_processing: bool
    n_past: int
    n_decoded: int


class LoadModelRequest(OpenModel):
    """`POST /models/load` and `/models/unload`."""

    model: str = Field(min_length=1, max_length=MAX_MODEL_CHARS)


class Success(BaseModel):
    """The answer to both."""

    success: bool = True
