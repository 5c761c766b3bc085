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
from rbee.hive.models.addresses import AllowedSources
from rbee.hive.models.file_selection import choose_files
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error
from rbee.hive.models.source_guard import SourceGuard, too_many_redirects, with_hub
from rbee.model_reference import HubRef, path_problem

METADATA_TIMEOUT_S = 10.0
PUBLIC_HUB = "https://huggingface.co"
_importing = threading.Lock()
_guarded = threading.Event()


async def plan(ref: HubRef, allowed: AllowedSources) -> list[RemoteFile]:
    """Return the files that *ref* means, as the hub lists them.

    `HF_ENDPOINT` and `HF_TOKEN` are honoured; the token goes to the hub's own host only. Raises RbeeError
    (MODEL_NOT_FOUND, MODEL_ACCESS_DENIED, DOWNLOAD_FAILED where the hub leads elsewhere) or BrokenTransferError.
    """
    return await asyncio.to_thread(_plan, ref, allowed)


def _plan(ref: HubRef, allowed: AllowedSources) -> list[RemoteFile]:
    with _importing:
        import httpx2
        from huggingface_hub import HfApi, get_token, hf_hub_url, is_offline_mode, set_client_factory
        from huggingface_hub.errors import HfHubHTTPError

        from rbee.hive.models import hub_transport

        if not _guarded.is_set():
            set_client_factory(hub_transport.new_client)
            _guarded.set()

    if is_offline_mode():
        raise RbeeError(
            ErrorCode.DOWNLOAD_FAILED,
            f"{ref.place} is not here and cannot be looked up: HF_HUB_OFFLINE is set for the hive.",
            hint="Unset it, or use a model that is in the catalog.",
        )
    endpoint = os.environ.get("HF_ENDPOINT") or None
    hub_transport.current_guard.set(SourceGuard(with_hub(allowed), endpoint or PUBLIC_HUB))
    token = get_token()
    try:
        api = HfApi(endpoint=endpoint, token=token, library_name="rbee", library_version=__version__)
        info = api.model_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=METADATA_TIMEOUT_S)
    except HfHubHTTPError as error:
        response = error.response
        raise http_error(response.status_code, ref.place, response.headers.get("Retry-After"), on_hub=True) from error
    except httpx2.TooManyRedirects as error:
        raise too_many_redirects(endpoint or PUBLIC_HUB) from error
    except (httpx2.RequestError, OSError) as error:
        raise BrokenTransferError(f"the hub could not be reached: {str(error) or type(error).__name__}") from error
    files = {file.rfilename: file for file in info.siblings or []}
    headers = {"User-Agent": f"rbee/{__version__}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    planned = []
    for name in choose_files(ref, list(files)):
        if (problem := path_problem(name)) is not None:
            raise RbeeError(
                ErrorCode.MODEL_NOT_FOUND,
                f"{ref.place} has the file {name[:200]!r}, which cannot be stored: {problem}.",
                hint="The repository is broken or hostile; name another one.",
            )
        file = files[name]
        planned.append(
            RemoteFile(
                url=hf_hub_url(ref.repo, name, revision=info.sha, endpoint=endpoint),
                path=f"{ref.folder}/{name}",
                size=file.size,
                sha256=file.lfs.sha256 if file.lfs else None,
                on_hub=True,
                headers=headers,
            )
        )
    return planned
