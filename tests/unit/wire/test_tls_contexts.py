"""Contexts say which file is no good before anything listens."""

import ssl
from pathlib import Path

import pytest

from tests.helpers.certificates import Authority
from wire.tls import TlsError, client_context, identity_of, server_context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "test authority")


def test_contexts_offer_only_new_versions(authority: Authority) -> None:
    server = authority.issue("server", names="DNS:localhost")
    for context in (
        server_context(server.certificate, server.key, authority.certificate),
        client_context(authority.certificate),
    ):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        old = {cipher["name"] for cipher in context.get_ciphers() if "CBC" in cipher["name"]}
        assert not old
    assert server_context(server.certificate, server.key).verify_mode == ssl.CERT_NONE
    assert client_context(authority.certificate).check_hostname


def test_a_file_that_cannot_be_read_is_named(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue("server2", names="DNS:localhost")
    absent = str(tmp_path / "absent.pem")
    for arguments in ((absent, server.key), (server.certificate, absent)):
        with pytest.raises(TlsError, match=r"absent\.pem: cannot be read: No such file"):
            server_context(*arguments)
    with pytest.raises(TlsError, match=r"absent\.pem"):
        client_context(absent)


def test_a_key_of_another_certificate_is_named(authority: Authority) -> None:
    one, other = (authority.issue(name, names="DNS:localhost") for name in ("one", "other"))
    with pytest.raises(TlsError, match=r"other\.key: is not the key of .*one\.pem"):
        server_context(one.certificate, other.key)


def test_what_is_no_pem_is_named(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    server = authority.issue("server3", names="DNS:localhost")
    with pytest.raises(TlsError, match=r"text\.pem"):
        server_context(str(text), server.key)
    with pytest.raises(TlsError, match=r"text\.pem"):
        server_context(server.certificate, server.key, str(text))


def test_an_encrypted_key_is_refused_and_nobody_is_asked(authority: Authority) -> None:
    server = authority.issue("locked", names="DNS:localhost", password="secret")
    with pytest.raises(TlsError, match=r"locked\.key: is encrypted"):
        server_context(server.certificate, server.key)


@pytest.mark.parametrize(
    ("certificate", "identity"),
    [
        (None, ""),
        ({}, ""),
        ({"subject": ((("commonName", "gate"),),)}, "gate"),
        (
            {
                "subject": ((("commonName", "gate"),),),
                "subjectAltName": (("DNS", "a"), ("URI", "spiffe://x/y"), ("URI", "spiffe://z")),
            },
            "spiffe://x/y",
        ),
        ({"subjectAltName": (("DNS", "a"), ("DNS", "b"))}, "a"),
    ],
)
def test_a_certificate_speaks_for_its_first_name(certificate: object, identity: str) -> None:
    assert identity_of(certificate) == identity
