"""What clients send to `/v1/rerank`, in the form that Jina's and Cohere's have and other servers took over."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from rbee.contracts.openai import OpenModel, Text

MAX_DOCUMENTS: Final = 1000
Words = Annotated[Text, Field(min_length=1)]


class Document(OpenModel):
    """A document as an object, of which only the text counts."""

    text: Words


class RerankRequest(OpenModel):
    """`POST /v1/rerank`: documents to be sorted by how well they answer a query.

    `top_n` are so many of the best, all by default; `return_documents` has each told with its text.
    """

    model: str | None = Field(default=None, max_length=2048)
    query: Words
    documents: list[Words | Document] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """Give the texts of the documents."""
        return [document if isinstance(document, str) else document.text for document in self.documents]
