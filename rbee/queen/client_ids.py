"""Name clients towards workers and hives without telling them who they are."""

from __future__ import annotations

import hmac


class ClientIds:
    """Opaque ids of clients: equal for the same client, also after a restart, and of no use without *secret*."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._ids: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def id(self, client: str) -> str:
        """Return the id of *client*."""
        found = self._ids.get(client)
        if found is None:
            found = hmac.digest(self._secret, b"client\n" + client.encode(), "sha256").hex()[:16]
            self._ids[client], self._names[found] = found, client
        return found

    def name(self, client_id: str) -> str:
        """Return the client with an id; an id that this queen has not given since its start is returned as it is."""
        return self._names.get(client_id, client_id)
