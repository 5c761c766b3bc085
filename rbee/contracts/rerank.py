"""The request of `/v1/rerank`, in the format of Jina and Cohere, which other servers use too."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from rbee.contracts.openai import OpenModel, Text

MAX_DOCUMENTS: Final = 1000
NonEmptyText = Annotated[Text, Field(min_length=1)]


class Document(OpenModel):
    """A document as an object, of which only the text is used."""

    text: NonEmptyText


class RerankRequest(OpenModel):
    """`POST /v1/rerank`: documents to sort by relevance to a query.

    `top_n` limits the result to the best ones; `return_documents` adds the text of each.
    """

    model: str | None = Field(default=None, max_length=2048)
    query: NonEmptyText
    documents: list[NonEmptyText | Document] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """Return the texts of the documents."""
        return [document if isinstance(document, str) else document.text for document in self.documents]
