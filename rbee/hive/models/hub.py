"""List the files of repositories on the Hugging Face hub; the only module that imports huggingface_hub.

The library lists the files of a repository, with sizes and sha256; the bytes are downloaded as from any other web
server, so that resume, progress and limits are the same for both.
"""

from __future__ import annotations

import asyncio
import os
import threading

from rbee import __version__
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.file_selection import choose_files
from rbee.hive.models.reference import HubRef
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error

METADATA_TIMEOUT_S = 10.0
_importing = threading.Lock()


async def plan(ref: HubRef) -> list[RemoteFile]:
    """Return the files that *ref* means, as the hub lists them.

    `HF_ENDPOINT` and `HF_TOKEN` are honoured. Raises RbeeError (MODEL_NOT_FOUND, MODEL_ACCESS_DENIED) or
    BrokenTransferError.
    """
    return await asyncio.to_thread(_plan, ref)


def _plan(ref: HubRef) -> list[RemoteFile]:
    with _importing:
        import httpx2
        from huggingface_hub import HfApi, get_token, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

    endpoint = os.environ.get("HF_ENDPOINT") or None
    token = get_token()
    try:
        api = HfApi(endpoint=endpoint, token=token, library_name="rbee", library_version=__version__)
        info = api.model_info(ref.repo, files_metadata=True, timeout=METADATA_TIMEOUT_S)
    except HfHubHTTPError as error:
        response = error.response
        raise http_error(response.status_code, f"hf:{ref.repo}", response.headers.get("Retry-After")) from error
    except (httpx2.TransportError, OSError) as error:
        raise BrokenTransferError(f"the hub could not be reached: {str(error) or type(error).__name__}") from error
    files = {file.rfilename: file for file in info.siblings or []}
    headers = {"User-Agent": f"rbee/{__version__}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    planned = []
    for name in choose_files(ref, list(files)):
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
            raise RbeeError(ErrorCode.MODEL_NOT_FOUND, f"hf:{ref.repo} names a file outside of itself: {name}.")
        file = files[name]
        planned.append(
            RemoteFile(
                url=hf_hub_url(ref.repo, name, revision=info.sha, endpoint=endpoint),
                path=f"hf/{ref.repo}/{name}",
                size=file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                headers=headers,
            )
        )
    return planned
