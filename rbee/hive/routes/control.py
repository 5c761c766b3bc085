"""The control channel: a queen's WebSocket."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.websockets import WebSocket

router = APIRouter()


@router.websocket("/v1/control")
async def control(websocket: WebSocket) -> None:
    """Serve one queen: state and events up, lease renewals down."""
    await websocket.app.state.daemon.channels.serve(websocket)
