"""The console's page: how a browser signs in, and who it then is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.keys import Right


class ConsoleTicket(BaseModel):
    """`POST /v2/console/tickets`: a ticket for one session with the rights of the caller's key, good once."""

    ticket: str = Field(repr=False)
    expires_s: float


class SignIn(BaseModel):
    """`POST /v2/console/sign-in`: either a ticket or a key; the answer sets the cookie of a session."""

    model_config = ConfigDict(extra="forbid")

    ticket: str | None = Field(default=None, max_length=128, repr=False)
    key: str | None = Field(default=None, max_length=512, repr=False)


class SessionInfo(BaseModel):
    """Whose session it is and until when; without a name there is none.

    `csrf` is what its page sends as X-Rbee-Csrf with whatever it changes.
    """

    client: str = ""
    rights: list[Right] = Field(default_factory=list)
    csrf: str = Field(default="", repr=False)
    until_unix: float | None = None


class OpenSession(BaseModel):
    """A session in a list; `id` opens nothing, `own` is that of whoever asks. Times in seconds since the epoch."""

    id: str
    client: str
    own: bool
    began_unix: float
    until_unix: float


class OpenSessions(BaseModel):
    """`GET /v2/console/sessions`."""

    sessions: list[OpenSession]
