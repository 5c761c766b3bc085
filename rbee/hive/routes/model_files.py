"""Send the files of models to other hives: opened by a ticket for the model, or by the hive's own key."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import ModelFiles, model_files_path
from rbee.contracts.patterns import MODEL_ID
from rbee.errors import RbeeError
from rbee.hive.models.paced_file import PacedFile
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter()
_PATH: Final = model_files_path("{model_id}")
_OF_MODEL: Final = re.compile(rf"({model_files_path('[a-z0-9-]+')})(?:/\d+)?")
_RANGE: Final = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")

ModelId = Annotated[str, Path(max_length=200, pattern=MODEL_ID)]
Number = Annotated[int, Path(ge=0)]


def path_of_model(path: str) -> str | None:
    """Return the path for which a ticket opens *path*: that of the model; None where it is no path of this module."""
    found = _OF_MODEL.fullmatch(path)
    return None if found is None else found[1]


@router.get(_PATH)
async def files(hive: HiveDep, model_id: ModelId) -> ModelFiles:
    """List the files of a model of the catalog, for a hive that copies it."""
    return await hive.sharing.files(model_id)


@router.get(f"{_PATH}/{{number}}", response_class=Response)
async def file(hive: HiveDep, model_id: ModelId, number: Number, request: Request) -> Response:
    """Send a file of a model of the catalog, or one range of it."""
    hive.drain.check()
    shared = await hive.sharing.file(model_id, number)
    _check_range(request.headers.get("Range"), shared.stat.st_size)
    return PacedFile(shared, hive.sharing, until=hive.drain.closed)


def _check_range(text: str | None, size: int) -> None:
    """Raise RbeeError INVALID_REQUEST unless *text* is one range of a file of *size* bytes, or none."""
    if text is None:
        return
    found = _RANGE.fullmatch(text)
    if found is None or int(found[1]) >= size or (found[2] and int(found[2]) < int(found[1])):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"The header Range of the request is no range of the file's {size} bytes.",
            details={"size_bytes": size},
            hint="Send one range, such as 'bytes=1000-'.",
            param="Range",
        )
