"""Parse model references; a pure function of the text.

Forms: `hf:org/repo[@revision][:quant or file]`, `file:///path/model.gguf`, `https://host/x.gguf[#sha256=...]`,
`package:<python package>/<file>`. A quantisation or a file may have its folder in the repository before it. Aliases
are resolved before a reference gets here.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import Provider, shown_reference
from rbee.errors import RbeeError
from rbee.gguf.split import first_part

_MAX_CHARS: Final = 2048
# What a folder or file may have in its name: 255 bytes, less what a download adds to it.
_MAX_NAME_BYTES: Final = 200
_MAX_PATH_BYTES: Final = 1024
_MAX_REPO_CHARS: Final = 96  # the hub's own limit
_MAX_REVISION_CHARS: Final = 100
_MAX_SHOWN: Final = 200

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\Z")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_QUANT: Final = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*\Z")
_PACKAGE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_WITH_MACHINE: Final = re.compile(r"//([^/]+)(.*)", re.DOTALL)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class HubRef:
    """A file of a repository on the hub; with neither *quant* nor *file*, the default quantisation.

    Args:
        quant: the quantisation, in capitals.
        file: a name, or a path from the root of the repository.
        revision: a branch, a tag or a commit; without one it is what the hub takes.
        within: the folder of the repository in which *quant* is looked for; without one, in all of them.
    """

    repo: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None
    within: str | None = None
    provider: Provider = Provider.HF

    @property
    def canonical(self) -> str:
        """Return the canonical spelling of this reference."""
        choice = self.file or (f"{self.within}/{self.quant}" if self.within else self.quant)
        return f"{self.place}:{choice}" if choice else self.place

    @property
    def place(self) -> str:
        """Return the part of the reference that names the repository and its revision."""
        return f"hf:{self.repo}@{self.revision}" if self.revision else f"hf:{self.repo}"

    @property
    def folder(self) -> str:
        """Return where its files lie below the folder of models."""
        return f"hf/{self.repo}@{_encoded(self.revision)}" if self.revision else f"hf/{self.repo}"


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of this machine, used where it lies; *path* is absolute."""

    path: str
    provider: Provider = Provider.FILE

    @property
    def canonical(self) -> str:
        """Return the canonical spelling of this reference."""
        return "file://" + quote(self.path)


@dataclass(frozen=True, slots=True)
class UrlRef:
    """A file that any web server has."""

    url: str = field(repr=False)
    sha256: str | None = None
    provider: Provider = Provider.HTTPS

    @property
    def canonical(self) -> str:
        """Return the canonical spelling of this reference; it does not hold the query, which may be a secret."""
        shown = shown_reference(self.url)
        return f"{shown}#sha256={self.sha256}" if self.sha256 else shown


@dataclass(frozen=True, slots=True)
class PackageRef:
    """A file that an installed Python distribution ships; *file* is relative to the package's folder."""

    package: str
    file: str
    provider: Provider = Provider.PACKAGE

    @property
    def canonical(self) -> str:
        """Return the canonical spelling of this reference."""
        return f"package:{self.package}/{self.file}"


ModelRef = HubRef | FileRef | UrlRef | PackageRef


def parse_reference(text: str) -> ModelRef:
    """Parse *text*. Raises RbeeError INVALID_MODEL_REF that says what is wrong; its hint lists the accepted forms."""
    scheme, colon, rest = text.partition(":")
    if len(text) > _MAX_CHARS:
        raise _invalid(text, f"it has more than {_MAX_CHARS} characters")
    if not colon:
        raise _invalid(text, "it does not begin with hf:, file:, https: or package:")
    if _UNPRINTABLE.search(text):
        raise _invalid(text, "it holds a control character, or bytes that are not UTF-8")
    match scheme:
        case "hf":
            return _parse_hub(text, rest)
        case "file":
            return _parse_file(text, rest)
        case "https":
            return _parse_url(text)
        case "package":
            return _parse_package(text, rest)
    raise _invalid(text, f"'{scheme[:_MAX_SHOWN]}:' is none of hf:, file:, https: and package:")


def path_problem(path: str) -> str | None:
    """Return why *path* cannot be that of a file below another folder, in words for a message; None if it can."""
    names = path.split("/")
    if "\\" in path or any(name in ("", ".", "..") for name in names):
        return "the file must lie inside, without '..' or empty parts in its path"
    if _UNPRINTABLE.search(path):
        return "its path holds a control character"
    sizes = [len(name.encode()) for name in names]
    if max(sizes) > _MAX_NAME_BYTES or sum(sizes) + len(names) > _MAX_PATH_BYTES:
        return f"a name may have {_MAX_NAME_BYTES} bytes, and a path {_MAX_PATH_BYTES}"
    return None


def _parse_hub(text: str, rest: str) -> HubRef:
    place, colon, choice = rest.partition(":")
    repo, at, revision = place.partition("@")
    names = repo.split("/")
    if len(names) != 2 or not all(_HUB_NAME.match(name) and ".." not in name for name in names):
        raise _invalid(text, "after hf: comes org/repo, two names of letters, digits, '.', '_' and '-'")
    if len(repo) > _MAX_REPO_CHARS:
        raise _invalid(text, f"org/repo has at most {_MAX_REPO_CHARS} characters")
    if at and (not _REVISION.match(revision) or ".." in revision or len(_encoded(revision)) > _MAX_REVISION_CHARS):
        raise _invalid(text, "after org/repo@ comes a branch, a tag or a commit")
    ref = HubRef(repo, revision=revision or None)
    if not colon:
        return ref
    if choice.lower().endswith(".gguf"):
        return replace(ref, file=first_part(_relative_path(text, choice)))
    within, _, quant = choice.rpartition("/")
    if not _QUANT.match(quant):
        raise _invalid(text, "after org/repo: comes a quantisation such as Q4_K_M, or the name of a .gguf file")
    if "/" in choice:
        _relative_path(text, choice)
    return replace(ref, quant=quant.upper(), within=within or None)


def _parse_file(text: str, rest: str) -> FileRef:
    # One slash and three mean the same (RFC 8089); after two comes the name of a machine, and this is that one.
    machine = _WITH_MACHINE.match(rest)
    if machine is not None and machine[1] != "localhost":
        path = machine[1] + machine[2]
        reason = f"after two slashes comes the name of a machine, here '{machine[1][:_MAX_SHOWN]}'"
        raise _invalid(
            text, reason, hint=f"For a file on the node: file:///{path} or file:/{path}" if machine[2] else None
        )
    path = unquote(rest if machine is None else machine[2])
    if not path.startswith("/") or "\0" in path:
        raise _invalid(text, "after file: comes an absolute path: file:///path/model.gguf")
    # POSIX lets two leading slashes mean something else; here they are a typing error.
    path = posixpath.normpath(path).lstrip("/")
    if not path:
        raise _invalid(text, "it names a folder, not a file: file:///path/model.gguf")
    return FileRef("/" + first_part(path))


def _parse_url(text: str) -> UrlRef:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _invalid(text, f"the address cannot be read: {error}") from error
    if not parts.hostname or " " in text or port == 0:
        raise _invalid(text, "the address names no host")
    if parts.username is not None or parts.password is not None:
        raise _invalid(text, "an address with a user name or password in it would end up in logs")
    if parts.path in ("", "/"):
        raise _invalid(text, "the address names no file")
    key, _, digest = parts.fragment.partition("=")
    digest = digest.lower()
    if parts.fragment and (key != "sha256" or not _SHA256.match(digest)):
        raise _invalid(text, "the part after '#' must be sha256= and 64 hexadecimal digits")
    return UrlRef(parts._replace(fragment="").geturl(), digest or None)


def _parse_package(text: str, rest: str) -> PackageRef:
    package, slash, file = rest.partition("/")
    if not slash or not file or not _PACKAGE.match(package):
        raise _invalid(text, "after package: comes the import name of a Python package, a slash and a file")
    _relative_path(text, package.replace(".", "/"))
    return PackageRef(package, first_part(_relative_path(text, file)))


def _encoded(revision: str) -> str:
    """Return a revision as the name of a folder."""
    return quote(revision, safe="")


def _relative_path(text: str, path: str) -> str:
    problem = path_problem(path)
    if problem is not None:
        raise _invalid(text, problem)
    return path


def _invalid(text: str, reason: str, *, hint: str | None = None) -> RbeeError:
    shown = shown_reference(text[:_MAX_CHARS])
    shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."
    return RbeeError(
        ErrorCode.INVALID_MODEL_REF,
        f"{shown!r} is not a model reference: {reason}.",
        details={"model": shown},
        hint=hint,
        param="model",
    )
