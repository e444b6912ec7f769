"""Where webhooks may go: web addresses whose name leads to no machine inside. Checked when given, and again before each sending."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from engine.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS = {"http": 80, "https": 443}
MAX_URL_CHARS = 2000

# What no stranger may have us talk to (IANA special-purpose registries), and the metadata services of clouds. The first hit names it.
INSIDE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a cloud's metadata service", ("169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128")),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("shared by a provider's customers (CGNAT)", ("100.64.0.0/10",)),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("for documentation only", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("reserved", ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001::/23", "::/3", "4000::/2", "8000::/1")),
)
BLOCKED = tuple((reason, tuple(ipaddress.ip_network(each) for each in networks)) for reason, networks in INSIDE)
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


@dataclass(frozen=True)
class Target:
    """A web address in its parts: ``host`` in ASCII without brackets, ``path`` with the query."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the name, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Return the parts of a web address; ``InputError`` when it is none that a message can be sent to."""
    try:
        found = httpx.URL(url)
        host = found.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise _no_url(f"it is no web address: {error}", url) from error
    if found.scheme not in PORTS:
        raise _no_url(f"its scheme is {found.scheme[:20]!r}", url)
    if not host or "%" in host:
        raise _no_url("it names no host", url)
    if found.userinfo or found.fragment:
        raise _no_url("it holds a password or a fragment", url)
    if len(str(found)) > MAX_URL_CHARS:
        raise _no_url(f"it is longer than {MAX_URL_CHARS} characters", url)
    if found.port is not None and not 0 < found.port < 1 << 16:
        raise _no_url(f"there is no port {found.port}", url)
    return Target(str(found), found.scheme, host, found.port or PORTS[found.scheme], found.raw_path.decode("ascii"))


def _no_url(why: str, url: str) -> InputError:
    hint = "Give an address that begins with https:// or http://, without user and password."
    return InputError("input.webhook_url", "Not an address for webhooks", f"{url[:200]!r} cannot be used: {why}"[:500], hint)


def resolve(target: Target, allow: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses behind a target; ``InputError`` when there is none, or when one of them is inside.

    ``allow``: networks (CIDR) that are allowed although they are inside. Whoever connects must connect to what this returns: asked
    again, a name server may say something else.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        detail = f"the host {target.host[:200]!r} has no address: {error}"
        raise InputError("input.webhook_unknown_host", "Unknown host", detail, "Check the name for mistakes.") from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    networks = [ipaddress.ip_network(each) for each in allow]
    for each in addresses:
        reason = inside(each, networks)
        if reason is not None:
            detail = f"{target.host[:200]} leads to {each}, which is {reason}"
            hint = "Use an address that anybody can reach, or name its network in SPLATWORKS_WEBHOOK_ALLOW."
            raise InputError("input.webhook_target", "Target not allowed", detail, hint, {"address": each})
    return addresses


def inside(address: str, allow: Iterable[Network] = ()) -> str | None:
    """Return why an address is not to be talked to, None when it may be. IPv4 within IPv6 counts as the IPv4 address it is."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "no address"
    allowed = tuple(allow)
    for each in meanings(given):
        if any(each.version == network.version and each in network for network in allowed):
            continue
        for reason, networks in BLOCKED:
            if any(each.version == network.version and each in network for network in networks):
                return reason
    return None


def meanings(address: Address) -> tuple[Address, ...]:
    """Return an address, or the IPv4 address that it carries (mapped, 6to4, NAT64): that is where the packets go."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return (address.ipv4_mapped,)
        if address in SIX_TO_FOUR and address.sixtofour is not None:
            return (address.sixtofour,)
        if int(address) >> 32 == 0 and int(address) > 1:  # ::a.b.c.d, out of use, but some systems still follow it
            return (ipaddress.IPv4Address(int(address)),)
        if any(address in network for network in NAT64):
            return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return (address,)
