"""The routes that only llama-server has: tokens and their texts, prompts as a model reads them, properties, slots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request

from rbee import __version__
from rbee.contracts.llama_server import (
    Detokenized,
    DetokenizeRequest,
    GenerationSettings,
    Props,
    RenderedPrompt,
    SlotState,
    Tokenized,
    TokenizeRequest,
    TokenPiece,
)
from rbee.contracts.openai import ChatRequest
from rbee.contracts.tasks import Sampling
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.worker import validation
from rbee.worker.chat.prompts import SHORT_CHARS
from rbee.worker.compat import chat
from rbee.worker.compat.chat_params import NO_PENALTY
from rbee.worker.compat.responding import check_model
from rbee.worker.dependencies import WorkerDep
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation_request import GenerationRequest

router = APIRouter()


@router.post("/tokenize")
async def answer_tokenize(worker: WorkerDep, body: JsonBody[TokenizeRequest], request: Request) -> Tokenized:
    """Tokenize a text."""
    service = worker.service
    check_model(service, request, body.model)
    engine, _ = service.require_engine()

    def tokenize() -> list[int]:
        return engine.tokenize(body.content, special=body.parse_special, ends=body.add_special)

    tokens = tokenize() if len(body.content) <= SHORT_CHARS else await asyncio.to_thread(tokenize)
    if not body.with_pieces:
        return Tokenized(tokens=tokens)
    return Tokenized(tokens=[TokenPiece(id=token, piece=_text_or_bytes(_piece(engine, token))) for token in tokens])


@router.post("/detokenize")
async def answer_detokenize(worker: WorkerDep, body: JsonBody[DetokenizeRequest], request: Request) -> Detokenized:
    """Return the text of tokens. Raises RbeeError INVALID_REQUEST for one that the model does not have."""
    service = worker.service
    check_model(service, request, body.model)
    engine, _ = service.require_engine()
    validation.check_tokens([GenerationRequest(Sampling(), tokens=tuple(body.tokens), param="tokens")], engine)
    return Detokenized(content=_text(engine, body.tokens))


@router.post("/apply-template")
async def answer_apply_template(worker: WorkerDep, body: JsonBody[ChatRequest], request: Request) -> RenderedPrompt:
    """Render a chat with the model's template, without the token that is put before every text anyway."""
    service = worker.service
    check_model(service, request, body.model)
    engine, tokenizer = service.require_engine()
    conversation = chat.to_chat_params(body).conversation
    rendered = await tokenizer.render(conversation, param="messages", answer=False)
    before = engine.tokenize("", special=False)[:1]
    tokens = rendered.tokens[1:] if rendered.tokens[:1] == tuple(before) else rendered.tokens
    return RenderedPrompt(prompt=await asyncio.to_thread(_text, engine, tokens))


@router.get("/props")
async def answer_props(worker: WorkerDep, request: Request) -> Props:
    """Return the properties of the model and of its slots."""
    service = worker.service
    name = request.query_params.get("model")
    check_model(service, request, name)
    engine, tokenizer = service.require_engine()
    capabilities: dict[str, bool] = {}
    with contextlib.suppress(RbeeError):  # a template that does not parse can do nothing
        capabilities = (await tokenizer.description())["capabilities"]
    name = name or service.settings.name
    return Props(
        default_generation_settings=GenerationSettings(
            n_ctx=engine.facts.context,
            params=Sampling(repeat_penalty=NO_PENALTY).model_dump(exclude={"max_tokens", "seed"}),
        ),
        total_slots=service.settings.slots,
        model_alias=name,
        model_path=name,
        chat_template=engine.facts.chat_template or "",
        chat_template_caps={cap: bool(value) for cap, value in capabilities.items()},
        build_info=f"rbee {__version__}",
    )


@router.get("/slots")
async def answer_slots(worker: WorkerDep, request: Request) -> list[SlotState]:
    """Describe the slots."""
    service = worker.service
    check_model(service, request, request.query_params.get("model"))
    return [
        SlotState(
            id=slot.index,
            n_ctx=service.context_length,
            is_processing=slot.request_id is not None,
            n_past=slot.cached_tokens,
            n_decoded=slot.generated_tokens,
        )
        for slot in service.requests.slots()
    ]


def _piece(engine: Engine, token: int) -> bytes:
    """Return the bytes of a token, and of a control token its name."""
    return engine.piece(token) or engine.control_text(token).encode()


def _text(engine: Engine, tokens: Sequence[int]) -> str:
    return b"".join([_piece(engine, token) for token in tokens]).decode("utf-8", "replace")


def _text_or_bytes(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
