"""A download connects to public addresses by https, and to what the operator named; to nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.addresses import AllowedSources, is_public
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import DownloadLimits
from rbee.hive.settings import HiveSettings
from rbee.model_reference import HubRef, UrlRef
from tests.support.gguf_files import write_gguf
from tests.support.hostile_host import HostileHost

NAMED = AllowedSources.parse(["localhost"])


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileHost]:
    with HostileHost(tmp_path) as host:
        monkeypatch.setenv("SSL_CERT_FILE", host.certificate)
        yield host


@pytest.fixture(name="inner")
def _inner(tmp_path: Path, host: HostileHost) -> Iterator[HostileHost]:
    """A host that only this machine reaches, as a router's page or a cloud's metadata are."""
    with HostileHost(tmp_path, "127.0.0.2", "127.0.0.2") as inner:
        inner.serve("/m.gguf", write_gguf(tmp_path / "inner.gguf").read_bytes())
        yield inner


def download(home: Path, ref: HubRef | UrlRef, allowed: AllowedSources = NAMED) -> None:
    async def whole() -> None:
        catalog = Catalog(f"sqlite:///{home / 'models.db'}", lambda: None)
        limits = DownloadLimits(5, allowed=allowed)
        downloads = Downloads(catalog, home / "models", limits, headers=HeaderReader(), chance=lambda: -0.49)
        try:
            await downloads.ensure(ref)
        finally:
            await downloads.close()
            await catalog.close()

    asyncio.run(whole())


def refused(home: Path, ref: HubRef | UrlRef, allowed: AllowedSources = NAMED) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        download(home, ref, allowed)
    assert caught.value.code is ErrorCode.DOWNLOAD_FAILED
    return caught.value


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """So is an IPv6 address that carries a public IPv4 one."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "ff02::1", "2001:db8::1", "2001::1", "64:ff9b:1::1"),
        *("::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
    ],
)
def test_all_other_addresses_are_not(address: str) -> None:
    """Private, loopback, link-local, multicast, reserved and unspecified ones, also carried in an IPv6 address."""
    assert not is_public(ip_address(address))


def test_the_operator_names_hosts_and_networks() -> None:
    """A network allows its addresses, in whatever form they come; what is neither host nor network is refused."""
    allowed = AllowedSources.parse(["10.1.0.0/16", "Mirror.LAN."])

    assert allowed.permits(ip_address("10.1.2.3"))
    assert allowed.permits(ip_address("::ffff:10.1.2.3"))
    assert not allowed.permits(ip_address("10.2.0.1"))
    assert allowed.names("mirror.lan")
    with pytest.raises(ValueError, match="http://mirror"):
        AllowedSources.parse(["http://mirror.lan/"])
    with pytest.raises(ValueError, match="a b"):
        HiveSettings(allow_private_sources="mirror.lan, a b")


def test_a_redirect_to_http_is_not_followed(tmp_path: Path, host: HostileHost) -> None:
    """A redirect away from https ends the download at once, and nothing is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        url = host.redirect("/m.gguf", f"http://127.0.0.1:{listening.getsockname()[1]}/admin?token=1")

        error = refused(tmp_path, UrlRef(url))

        with pytest.raises(TimeoutError):
            listening.accept()
    assert "not https" in error.message
    assert "token" not in error.message
    assert len(host.seen) == 1


def test_a_redirect_to_a_private_address_is_not_followed(tmp_path: Path, host: HostileHost, inner: HostileHost) -> None:
    """A redirect to an address that is not public and not named ends the download before a connection."""
    error = refused(tmp_path, UrlRef(host.redirect("/m.gguf", f"{inner.url}/m.gguf")))

    assert "allow_private_sources" in error.hint
    assert inner.seen == []
    assert list((tmp_path / "models").rglob("*.part*")) == []


def test_what_is_named_is_downloaded(tmp_path: Path, host: HostileHost, inner: HostileHost) -> None:
    """A redirect to an address that the operator named is followed."""
    allowed = AllowedSources.parse(["localhost", "127.0.0.2/32"])

    download(tmp_path, UrlRef(host.redirect("/m.gguf", f"{inner.url}/m.gguf")), allowed)

    assert [path for path, _ in inner.seen] == ["/m.gguf"]


def test_a_private_address_is_refused_from_the_start(tmp_path: Path, host: HostileHost) -> None:
    """A name with only private addresses is refused, unless it was named."""
    url = host.serve("/m.gguf", b"GGUF")

    refused(tmp_path, UrlRef(url), AllowedSources())

    assert host.seen == []


def test_a_name_is_resolved_once_for_check_and_connection(
    tmp_path: Path, host: HostileHost, inner: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that says something else the second time leads nowhere: the checked address is connected to."""
    answers = iter(["127.0.0.1", "127.0.0.2"])
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebind(name: Any, *args: Any, **more: Any) -> Any:
        name = name.decode() if isinstance(name, bytes) else name
        if name != "localhost":
            return real(name, *args, **more)
        asked.append(name)
        return real(next(answers), *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    url = host.serve("/m.gguf", write_gguf(tmp_path / "m.gguf").read_bytes())

    download(tmp_path, UrlRef(url), AllowedSources.parse(["127.0.0.1"]))

    assert asked == ["localhost"]
    assert [path for path, _ in host.seen] == ["/m.gguf"]
    assert inner.seen == []


def test_redirects_are_bounded(tmp_path: Path, host: HostileHost) -> None:
    """A server that redirects for ever is given up after five, without a retry."""
    error = refused(tmp_path, UrlRef(host.redirect("/m.gguf", "/m.gguf")))

    assert "redirects" in error.message
    assert len(host.seen) == 6


@pytest.mark.parametrize(
    "place", ["https://xn--\u00fc/m.gguf", "file:///etc/passwd", "ftp://localhost/m.gguf", "//[::1/"]
)
def test_a_redirect_to_nonsense_is_an_error_in_words(tmp_path: Path, host: HostileHost, place: str) -> None:
    """A redirect to what is no address of the web is DOWNLOAD_FAILED, not a bug."""
    refused(tmp_path, UrlRef(host.redirect("/m.gguf", place.encode().decode("latin-1"))))


def test_headers_that_nobody_sends_are_no_bug(tmp_path: Path, host: HostileHost) -> None:
    """Lengths of thousands of digits and versions that cannot be sent back are ignored or refused in words."""
    content = write_gguf(tmp_path / "m.gguf").read_bytes()
    for number, headers in enumerate([{"ETag": '"\xe9"'}, {"Retry-After": "9" * 400}, {"Content-Range": "9" * 4400}]):
        download(tmp_path, UrlRef(host.serve(f"/{number}.gguf", content, headers)))


def test_the_hub_may_not_lead_inside(
    tmp_path: Path, host: HostileHost, inner: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's interface follows the same rules as the files; the operator's own HF_ENDPOINT is allowed by him."""
    close_session()  # of another test, which trusted another certificate
    monkeypatch.setenv("HF_ENDPOINT", host.url)
    host.redirect("/api/models/bees/tiny", f"{inner.url}/m.gguf")

    error = refused(tmp_path, HubRef("bees/tiny"), AllowedSources())

    assert [path for path, _ in host.seen if "bees/tiny" in path] == ["/api/models/bees/tiny"]
    assert inner.seen == []
    assert "allow_private_sources" in error.hint


def test_a_token_stays_with_the_hub(
    tmp_path: Path, host: HostileHost, inner: HostileHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN goes to the hub's own host, and along no redirect to another."""
    close_session()  # of another test, which trusted another certificate
    monkeypatch.setenv("HF_ENDPOINT", host.url)
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret_token")
    listing = {"id": "bees/tiny", "modelId": "bees/tiny", "sha": "0" * 40, "siblings": [{"rfilename": "m.gguf"}]}
    inner.serve("/listing", json.dumps(listing).encode(), {"Content-Type": "application/json"})
    host.redirect("/api/models/bees/tiny", f"{inner.url}/listing")
    host.redirect(f"/bees/tiny/resolve/{'0' * 40}/m.gguf", f"{inner.url}/m.gguf")

    download(tmp_path, HubRef("bees/tiny"), AllowedSources.parse(["127.0.0.2"]))

    asked = [headers for path, headers in host.seen if "bees/tiny" in path]
    assert [headers["authorization"] for headers in asked] == ["Bearer hf_a_secret_token"] * 2
    assert [path for path, _ in inner.seen] == ["/listing", "/m.gguf"]
    assert all("authorization" not in headers for _, headers in inner.seen)
