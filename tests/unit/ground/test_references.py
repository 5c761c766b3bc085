"""How model references are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.references import is_masked, shown_reference

SIGNED = "https://host/x.gguf?X-Amz-Credential=AKIA&X-Amz-Signature=0123456789abcdef"


def test_the_query_of_an_address_is_not_shown() -> None:
    """A signature is replaced by a digest, which keeps two addresses apart; checksum and path stay."""
    shown = shown_reference(SIGNED + "#sha256=" + "0" * 64)

    assert shown.startswith("https://host/x.gguf?masked=")
    assert shown.endswith("#sha256=" + "0" * 64)
    assert "AKIA" not in shown
    assert "0123456789abcdef" not in shown
    assert shown != shown_reference(SIGNED + "1" + "#sha256=" + "0" * 64)
    assert is_masked(shown)
    assert not is_masked(SIGNED)


@pytest.mark.parametrize("scheme", ["https", "http", "HTTPS", "s3", "ftp"])
def test_user_and_password_of_an_address_are_not_shown(scheme: str) -> None:
    """Also of an address that is no reference: the error that says so shows it."""
    shown = shown_reference(f"{scheme}://me:hunter22@host/x.gguf?token=a\nb")

    assert shown.startswith(f"{scheme}://host/x.gguf?masked=")
    assert "token" not in shown


@pytest.mark.parametrize("reference", ["hf:org/repo:Q4_K_M", "file:///a?b@c.gguf", "package:p/x.gguf", "bee"])
def test_what_has_no_query_is_shown_as_it_is(reference: str) -> None:
    """Only addresses have a query and a user."""
    assert shown_reference(reference) == reference


@given(st.text(), st.text())
def test_the_shown_form_is_its_own(path: str, query: str) -> None:
    """Showing a reference twice changes nothing more."""
    shown = shown_reference(f"https://host/{path}?{query}")

    assert shown_reference(shown) == shown
