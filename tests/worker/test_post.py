"""One webhook message over real sockets: to the checked address only, under the name's own certificate, within the time."""

import ssl
import subprocess

import httpx
import pytest

from api.services import targets
from api.services.deliveries import Parcel
from tests.receiver import receiver, status
from worker import post

SECRET = "whsec_" + "QUJD" * 8
LOOPBACK = ("127.0.0.0/8", "::1/128")


def parcel(url: str) -> Parcel:
    return Parcel("0193", "endpoint", 1, url, (SECRET,), '{"type":"webhook.test"}')


def rules(allow=LOOPBACK, certificates=None, timeout_s: float = 20.0) -> post.Rules:
    return post.Rules(timeout_s, allow, certificates or httpx.create_ssl_context())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of its own making for the name localhost, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *extra], check=True, capture_output=True)
    both.write_text(key.read_text() + cert.read_text())
    return both


def test_a_message_goes_to_the_address_that_was_checked_although_the_name_says_another_later(monkeypatch):
    asked = []

    def changing(host, port, *_args, **_more):
        if host == "127.0.0.1":  # connecting to an address asks too, and gets it back
            return [(2, 1, 6, "", (host, port))]
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(2, 1, 6, "", (address, port))]

    with receiver() as right, monkeypatch.context() as patch:
        patch.setattr(targets.socket, "getaddrinfo", changing)
        outcome = post.send(parcel(right.url("/in", host="rebind.example")), rules())
        assert outcome.word == "delivered", outcome
        assert asked == ["rebind.example"]
        (got,) = right.received
        assert got.headers["host"] == f"rebind.example:{right.port}"
        assert got.verified(SECRET) == {"type": "webhook.test"}


def test_a_name_that_leads_inside_at_the_time_of_sending_is_refused_and_nothing_is_sent():
    with receiver() as inside:
        outcome = post.send(parcel(inside.url(host="localhost")), rules(allow=()))
        assert outcome.word == "refused"
        assert "localhost leads to" in outcome.error
        assert "loopback" in outcome.error
        assert not inside.received


def test_the_certificate_must_be_that_of_the_name(certificate):
    trusting = ssl.create_default_context(cafile=certificate)
    with receiver(certificate) as secure:
        assert post.send(parcel(secure.url("/tls", host="localhost")), rules(certificates=trusting)).word == "delivered"
        wrong_name = post.send(parcel(secure.url("/tls")), rules(certificates=trusting))
        assert wrong_name.word == "unreachable"
        assert "certificate" in wrong_name.error
        unknown = post.send(parcel(secure.url("/tls", host="localhost")), rules())
        assert unknown.word == "unreachable"
        assert len(secure.received) == 1


def test_a_port_where_nobody_listens_and_an_answer_that_is_no_http_are_told():
    with receiver() as gone:
        closed = gone.url()
    assert post.send(parcel(closed), rules()).word == "unreachable"
    with receiver() as rude:
        rude.answers["/"] = [lambda handler: handler.wfile.write(b"220 mail.example ESMTP\r\n")]
        outcome = post.send(parcel(rude.url()), rules())
        assert outcome.word == "unreachable"
        assert "RemoteProtocolError" in outcome.error


@pytest.mark.parametrize(
    ("code", "word"), [(200, "delivered"), (299, "delivered"), (301, "redirect"), (404, "status"), (410, "gone"), (500, "status")]
)
def test_only_200_to_299_is_success(code, word):
    with receiver() as answering:
        answering.answers["/"] = [status(code, b"because\r\n<b>\x1b[31m of it")]
        outcome = post.send(parcel(answering.url()), rules())
        assert (outcome.word, outcome.status) == (word, code)
        if word == "status":
            assert outcome.error == f"answered {code}: because <b>[31m of it"


def test_an_address_of_ipv6_is_reached_under_its_brackets():
    target = targets.parse("http://[::1]:8080/x")
    assert target.authority == "[::1]:8080"
