"""Who may use a server: addresses, names and tokens."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medjax.data.values import one_line
from medjax.types import UserError

LEAST = 16  # characters of a token
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who is served: requests for one of the `hosts`, which a page of another site can't fake, with the token if any."""

    hosts: frozenset[str]
    token: str = ""


def address_of(host: str) -> str:
    """The address of a host. Raises UserError."""
    try:
        return str(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise UserError("--host", f"{host!r} is no address of this machine: {error.strerror}") from error


def is_loopback(address: str) -> bool:
    """Whether no other machine reaches an address."""
    return _parsed(address).is_loopback


def access_at(address: str, host: str, token_file: str, names: Sequence[str]) -> Access:
    """Who is served at an address, which `host` stands for. Raises UserError where that needs a token, or names."""
    token = _token(Path(token_file).expanduser()) if token_file else ""
    if not token and not is_loopback(address):
        raise UserError("--host", f"{address} is open to other machines, and there is no --token_file; give one, or "
                        "listen at 127.0.0.1")
    if _parsed(address).is_unspecified and not names:
        raise UserError("--allowed_host", f"is missing: with --host={address}, give the names that the server is asked by")
    own = LOOPBACK if is_loopback(address) else (host, in_url(address))
    return Access(frozenset(name.lower() for name in (*own, *names)), token)


def in_url(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address.partition("%")[0])


def _token(path: Path) -> str:
    """The token in a file. Raises UserError for one that others can read, or that can be guessed."""
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("--token_file", f"{path} can't be read: {one_line(error)}") from error
    if mode & 0o077:
        raise UserError("--token_file", f"{path} can be read by others than its owner: chmod 600")
    if len(token) < LEAST or not token.isprintable() or " " in token:
        raise UserError("--token_file", f"{path} holds no token of at least {LEAST} characters; make one: "
                        f"(umask 077; python -c 'import secrets; print(secrets.token_urlsafe())' > {path})")
    return token
