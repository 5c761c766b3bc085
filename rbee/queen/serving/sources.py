"""Read what is declared to be served: from the queen's files, at its start and upon a signal, and from its database.

What the queen's routes declare is kept in the database. Where a file declares the same name, the file has it: then the
queen goes by the same declarations after a reload and after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.queen.database import Database
from rbee.queen.serving.declarations import Declarations, Declared, contradictory, fitting

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel
    from rbee.queen.serving.served_table import ServedTable

log = logging.getLogger(__name__)


class DeclarationSources:
    """The sources of *declarations*, which follow them.

    Args:
        read_files: reads what the queen's files declare now. Raises ConfigError.
    """

    def __init__(
        self, declarations: Declarations, database: Database, read_files: Callable[[], list[Declared]]
    ) -> None:
        self.declarations = declarations
        self.problem: str | None = None
        """Why not everything that is declared is served, for people; None where it is."""
        self._database = database
        self._read_files = read_files
        self._changing = asyncio.Lock()
        self._files: list[Declared] = []
        self._stored: dict[str, Declared] = {}
        self._unreadable: dict[str, str] = {}

    async def load(self) -> None:
        """Read files and database at the start. Raises ConfigError for a file that is wrong."""
        self._files = self._read_files()
        if self._database.opened is not None:
            stored, unreadable = await (await self._table()).all()
            self._stored = {model.name: Declared(model, "api") for model in stored}
            self._unreadable = {
                name: f"{name} cannot be read by this version: {reason}" for name, reason in unreadable.items()
            }
        self._apply()

    async def reload(self) -> None:
        """Read the files again; where they are wrong, that is logged, and all stays as it is."""
        async with self._changing:
            try:
                self._files = await asyncio.to_thread(self._read_files)
            except ConfigError as error:
                self.problem = f"{error.message.rstrip('.')}. All declared models stay as they were."
                reasons = [each.message for each in (error, *error.also)]
                log.error("declared models not reloaded", extra={"fields": {"reasons": reasons}})
                return
            self._apply()
            log.info("declared models reloaded", extra={"fields": {"models": len(self.declarations.all())}})

    async def put(self, model: ServedModel) -> Declared:
        """Declare a model, or change its declaration, and store it.

        Raises RbeeError: DECLARED_IN_FILE, INVALID_REQUEST where it contradicts another declaration.
        """
        async with self._changing:
            self._check_not_in_file(model.name)
            declared = Declared(model, "api")
            changed = {**self._stored, model.name: declared}
            self._check(changed)
            await (await self._table()).put(model)
            self._stored = changed
            self._unreadable.pop(model.name, None)
            self._apply()
        return declared

    async def remove(self, name: str) -> None:
        """Remove a declaration.

        Raises RbeeError: MODEL_NOT_FOUND, DECLARED_IN_FILE, INVALID_REQUEST where another one refers to it.
        """
        async with self._changing:
            if name not in self._stored and name not in self._unreadable:
                self._check_not_in_file(name)
                names = ", ".join(declared.model.name for declared in self.declarations.all()) or "none"
                raise RbeeError(
                    ErrorCode.MODEL_NOT_FOUND,
                    f"There is no declared model {name[:100]!r}. Declared: {names}.",
                    hint="List the declared models: rbee-keeper models served",
                    param="name",
                )
            changed = {other: declared for other, declared in self._stored.items() if other != name}
            self._check(changed)
            await (await self._table()).remove(name)
            self._stored = changed
            self._unreadable.pop(name, None)
            self._apply()

    def _check_not_in_file(self, name: str) -> None:
        declared = next((each for each in self._files if each.model.name == name), None)
        if declared is not None:
            raise RbeeError(
                ErrorCode.DECLARED_IN_FILE,
                f"{name} is declared in {declared.place}, and what a file declares is changed there.",
                details={"name": name, "place": declared.place},
                param="name",
            )

    def _check(self, stored: Mapping[str, Declared]) -> None:
        """Raise RbeeError INVALID_REQUEST where a change of *stored* is the cause of a contradiction."""
        _, before = fitting(self._files, self._stored.values())
        _, after = fitting(self._files, stored.values())
        if new := [problem for problem in after if problem not in before]:
            raise contradictory(new)

    def _apply(self) -> None:
        """Have the declarations follow the sources."""
        kept, refused = fitting(self._files, self._stored.values())
        self.declarations.replace_all([*self._files, *kept])
        reasons = list(dict.fromkeys([*self._unreadable.values(), *(problem.reason for problem in refused)]))
        self.problem = f"Not served as declared by a command: {'; '.join(reasons)}." if reasons else None
        if reasons:
            log.error("declarations left out", extra={"fields": {"reasons": reasons}})

    async def _table(self) -> ServedTable:
        from rbee.queen.serving.served_table import ServedTable

        return ServedTable(await self._database.require())
