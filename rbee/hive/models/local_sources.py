"""Find models that need no download, and plan the download of a URL: `file:`, `package:` and `https:`."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import is_masked
from rbee.errors import RbeeError
from rbee.hive.models.file_selection import choose_files
from rbee.hive.models.remote import RemoteFile
from rbee.model_reference import FileRef, HubRef, PackageRef, UrlRef


def locate_file(ref: FileRef) -> Path:
    """Return the path of a file of this machine; reading its header will show whether it is a model."""
    return Path(ref.path)


def locate_package(ref: PackageRef) -> Path:
    """Find a file of an installed package without importing it: its imports may be missing here.

    Raises RbeeError MODEL_NOT_FOUND.
    """
    top, *inner = ref.package.split(".")
    spec = _spec(top)
    folders = [Path(folder).joinpath(*inner) for folder in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise RbeeError(
            ErrorCode.MODEL_NOT_FOUND,
            f"No Python package '{top}' is installed beside the hive.",
            details={"model": ref.canonical, "package": top},
            hint="On a machine of the inventory: add the reference to rbee_models, then rbee-keeper hive install; "
            "elsewhere install the distribution with pip beside the hive.",
            param="model",
        )
    for folder in folders:
        if (folder / ref.file).is_file():
            return folder / ref.file
    present = sorted(path.name for folder in folders for path in folder.glob("*.gguf"))
    shown = f"; it has: {', '.join(present)}" if present else ""
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"The package '{ref.package}' has no file {ref.file}{shown}.",
        details={"model": ref.canonical, "available": present},
        hint=f"Name a file that it has: package:{ref.package}/{present[0] if present else '<file>'}",
        param="model",
    )


def plan_fetched(ref: HubRef, folder: Path) -> list[RemoteFile]:
    """Return the files that *ref* means among those that were fetched before into *folder*, that of the models.

    Raises RbeeError MODEL_NOT_FOUND. Blocking.
    """
    own = folder / ref.folder
    names = [str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()]
    return [RemoteFile(url=ref.place, path=f"{ref.folder}/{name}") for name in choose_files(ref, names)]


def plan_url(ref: UrlRef) -> list[RemoteFile]:
    """Return the one file of an address, in a folder of the host, its name kept apart from others by a digest.

    Raises RbeeError MODEL_NOT_FOUND for an address without its query, as lists show it.
    """
    if is_masked(ref.url):
        raise RbeeError(
            ErrorCode.MODEL_NOT_FOUND,
            f"{ref.canonical} is not here, and cannot be fetched again: the query of its address is not kept.",
            details={"model": ref.canonical},
            hint="Name the whole address again.",
            param="model",
        )
    return [RemoteFile(url=ref.url, path=url_path(ref), sha256=ref.sha256)]


def url_path(ref: UrlRef) -> str:
    """Return where the file of an address lies below the folder of models."""
    parts = urlsplit(ref.url)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(parts.path).rsplit("/", 1)[-1]).lstrip(".") or "model"
    stem = name.removesuffix(".gguf")[-100:]
    digest = hashlib.sha256(ref.url.encode()).hexdigest()[:8]
    host = re.sub(r"[^A-Za-z0-9.-]", "_", parts.hostname or "")
    return f"https/{host}/{stem}-{digest}.gguf"


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
