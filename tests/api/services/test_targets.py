"""Which addresses webhooks may go to."""

import ipaddress
import random

import pytest

from api.services import targets
from engine.errors import InputError


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "a cloud's metadata service"),
        ("::ffff:169.254.169.254", "a cloud's metadata service"),
        ("fd00:ec2::254", "a cloud's metadata service"),
        ("168.63.129.16", "a cloud's metadata service"),
        ("100.100.100.200", "a cloud's metadata service"),
        ("100.64.0.1", "shared by a provider's customers (CGNAT)"),
        ("100.127.255.255", "shared by a provider's customers (CGNAT)"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("198.18.0.1", "reserved"),
        ("192.0.2.1", "for documentation only"),
        ("2001:db8::1", "for documentation only"),
        ("4000::1", "reserved"),
        ("not-an-address", "no address"),
    ],
)
def test_addresses_inside_are_named(address, reason):
    assert targets.inside(address) == reason


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "11.0.0.1"]
)
def test_addresses_that_anybody_can_reach_are_allowed(address):
    assert targets.inside(address) is None


def test_every_address_that_python_does_not_call_global_is_inside():
    dice = random.Random(20261121)
    drawn = [ipaddress.IPv4Address(dice.getrandbits(32)) for _ in range(5000)]
    local = [each for each in drawn if not each.is_global]
    assert len(local) > 300
    assert [str(each) for each in local if targets.inside(str(each)) is None] == []


def test_a_named_network_is_allowed_and_its_neighbour_is_not():
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::1/128")]
    assert targets.inside("10.1.2.3", allowed) is None
    assert targets.inside("::ffff:10.1.2.3", allowed) is None
    assert targets.inside("::1", allowed) is None
    assert targets.inside("10.2.0.1", allowed) == "private"


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://017700000001/", "http://localhost./"])
def test_other_spellings_of_loopback_lead_to_loopback(url):
    with pytest.raises(InputError, match=r"which is loopback|has no address"):
        targets.resolve(targets.parse(url), ())


def test_a_name_is_refused_when_one_of_its_addresses_is_inside(monkeypatch):
    answer = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.5", 80))]
    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_args, **_more: answer)
    with pytest.raises(InputError, match=r"two\.example leads to 10\.0\.0\.5, which is private"):
        targets.resolve(targets.parse("http://two.example/"), ())
    assert targets.resolve(targets.parse("http://two.example/"), ["10.0.0.0/8"]) == ("93.184.216.34", "10.0.0.5")


def test_parts_of_an_address_are_found():
    target = targets.parse("https://bücher.example:8443/a b?c=d")
    assert (target.scheme, target.host, target.port) == ("https", "xn--bcher-kva.example", 8443)
    assert target.path == "/a%20b?c=d"
    assert target.authority == "xn--bcher-kva.example:8443"
    assert targets.parse("http://[2606:4700::1]/").authority == "[2606:4700::1]"
