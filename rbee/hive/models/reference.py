"""Parse model references; a pure function of the text.

Forms: `hf:org/repo[@revision][:quant or file]`, `file:///path/model.gguf`, `https://host/x.gguf[#sha256=...]`,
`package:<python package>/<file>`. Aliases are resolved before a reference gets here.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import Provider
from rbee.contracts.references import shown_reference
from rbee.errors import RbeeError
from rbee.gguf.split import first_part

ACCEPTED_FORMS: Final = (
    "hf:org/repo[@revision][:quant or file]",
    "file:///path/model.gguf",
    "https://host/x.gguf#sha256=...",
    "package:<python package>/<file>",
    "an alias from [models] in the config file",
)

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\Z")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_QUANT: Final = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*\Z")
_PACKAGE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class HubRef:
    """A file of a repository on the hub; with neither *quant* nor *file*, the default quantisation.

    *revision* is a branch, a tag or a commit; without one it is what the hub takes.
    """

    repo: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None
    provider: Provider = Provider.HF

    @property
    def canonical(self) -> str:
        """Return the canonical spelling of this reference."""
        choice = self.file or self.quant
        return f"{self.place}:{choice}" if choice else self.place

    @property
    def place(self) -> str:
        """Return the part of the reference that names the repository and its revision."""
        return f"hf:{self.repo}@{self.revision}" if self.revision else f"hf:{self.repo}"

    @property
    def folder(self) -> str:
        """Return where its files lie below the folder of models."""
        return f"hf/{self.repo}@{quote(self.revision, safe='')}" if self.revision else f"hf/{self.repo}"


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
    """Parse *text*. Raises RbeeError INVALID_MODEL_REF that says what is wrong and lists the accepted forms."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        raise _invalid(text, "it is neither an alias nor does it begin with hf:, file:, https: or package:")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise _invalid(text, "it holds a control character")
    match scheme:
        case "hf":
            return _parse_hub(text, rest)
        case "file":
            return _parse_file(text, rest)
        case "https":
            return _parse_url(text)
        case "package":
            return _parse_package(text, rest)
    raise _invalid(text, f"'{scheme}:' is not a provider")


def _parse_hub(text: str, rest: str) -> HubRef:
    place, colon, choice = rest.partition(":")
    repo, at, revision = place.partition("@")
    names = repo.split("/")
    if len(names) != 2 or not all(_HUB_NAME.match(name) and ".." not in name for name in names):
        raise _invalid(text, "after hf: comes org/repo, two names of letters, digits, '.', '_' and '-'")
    if at and (len(revision) > 200 or not _REVISION.match(revision) or ".." in revision):
        raise _invalid(text, "after org/repo@ comes a branch, a tag or a commit")
    ref = HubRef(repo, revision=revision or None)
    if not colon:
        return ref
    if choice.lower().endswith(".gguf"):
        return replace(ref, file=first_part(_relative_path(text, choice)))
    if not _QUANT.match(choice):
        raise _invalid(text, "after org/repo: comes a quantisation such as Q4_K_M, or the name of a .gguf file")
    return replace(ref, quant=choice.upper())


def _parse_file(text: str, rest: str) -> FileRef:
    # One slash and three mean the same (RFC 8089); after two comes the name of a machine, and this is that one.
    named = rest.startswith("//") and not rest.startswith("///")
    path = unquote(rest.removeprefix("//localhost") if named else rest)
    if not path.startswith("/") or (named and path.startswith("//")) or "\0" in path:
        raise _invalid(text, "after file: comes an absolute path: file:///path/model.gguf")
    # POSIX lets two leading slashes mean something else; here they are a typing error.
    return FileRef("/" + first_part(posixpath.normpath(path)).lstrip("/"))


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
    if not slash or not _PACKAGE.match(package):
        raise _invalid(text, "after package: comes the import name of a Python package, a slash and a file")
    return PackageRef(package, first_part(_relative_path(text, file)))


def _relative_path(text: str, path: str) -> str:
    segments = path.split("/")
    if "\\" in path or any(segment in ("", ".", "..") for segment in segments):
        raise _invalid(text, "the file must lie inside, without '..' or empty parts in its path")
    return path


def _invalid(text: str, reason: str) -> RbeeError:
    shown = shown_reference(text)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return RbeeError(
        ErrorCode.INVALID_MODEL_REF,
        f"'{shown}' is not a model reference: {reason}. Accepted: {'; '.join(ACCEPTED_FORMS)}.",
        details={"model": shown, "accepted": list(ACCEPTED_FORMS)},
        param="model",
    )
