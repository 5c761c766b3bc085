"""Know the models that are in a catalog or served somewhere: who has them, and what their files are called. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Set

from rbee.contracts.models import CatalogEntry


class KnownModels:
    """The models of the fleet by their references and by the names of their files, kept as hives report them."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, CatalogEntry]] = {}
        self._uses: Counter[str] = Counter()
        self._files: dict[str, Counter[str]] = {}
        self._by_file: dict[str, set[str]] = {}

    def catalog(self, node: str, before: Iterable[CatalogEntry], after: Iterable[CatalogEntry]) -> None:
        """Replace the catalog of a node."""
        for entry in before:
            of_nodes = self._entries.get(entry.reference, {})
            of_nodes.pop(node, None)
            if not of_nodes:
                self._entries.pop(entry.reference, None)
            self._remove(entry.reference, entry.local_path)
        for entry in after:
            self._entries.setdefault(entry.reference, {}).setdefault(node, entry)
            self._add(entry.reference, entry.local_path)

    def serve(self, reference: str) -> None:
        """Count one more worker of a model."""
        self._add(reference, _path_in(reference))

    def unserve(self, reference: str) -> None:
        """Count one worker of a model less."""
        self._remove(reference, _path_in(reference))

    @property
    def references(self) -> Set[str]:
        """Return the references of all."""
        return self._uses.keys()

    def files(self, reference: str) -> Collection[str]:
        """Return the names of a model's file, with its ending and without."""
        return self._files.get(reference, ())

    def with_file(self, name: str) -> Collection[str]:
        """Return the references of the models with a file of this name."""
        return self._by_file.get(name, ())

    def entries(self, reference: str) -> list[tuple[str, CatalogEntry]]:
        """Return the nodes that have a model in their catalog, by name, with what they say of it."""
        return sorted(self._entries.get(reference, {}).items(), key=lambda found: found[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KnownModels) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _add(self, reference: str, path: str) -> None:
        self._uses[reference] += 1
        for name in _file_names(path):
            self._files.setdefault(reference, Counter())[name] += 1
            self._by_file.setdefault(name, set()).add(reference)

    def _remove(self, reference: str, path: str) -> None:
        self._uses[reference] -= 1
        if not self._uses[reference]:
            del self._uses[reference]
        for name in _file_names(path):
            files, references = self._files[reference], self._by_file[name]
            files[name] -= 1
            if not files[name]:
                del files[name]
                references.discard(reference)
            if not files:
                del self._files[reference]
            if not references:
                del self._by_file[name]


def _path_in(reference: str) -> str:
    """Return the file that a reference names, as far as it names one."""
    return reference.partition("#")[0].rpartition(":")[2]


def _file_names(path: str) -> tuple[str, ...]:
    file = path.rstrip("/").rpartition("/")[2]
    return (file, file.removesuffix(".gguf")) if file.endswith(".gguf") else ()
