"""Opens SSH connections: pinned host keys, only the configured key of ours, a timeout for each step, jump hosts."""

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fabric
import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import PasswordRequiredException

from app.domain.host import Address
from workers.errors import Unreachable, Untrusted
from workers.ssh.deadlines import Deadlines
from workers.ssh.host_keys import KeyReader, PinnedKeys, fingerprint

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # our errors repeat what it would log
AGENT = "agent"  # as key_path: use the ssh-agent of the user that runs the workers
REJECTIONS = (paramiko.AuthenticationException, paramiko.BadHostKeyException)
NETWORK_ERRORS = (OSError, EOFError, paramiko.SSHException)
# Fabric reads no ssh_config of the user or the machine, and forwards no agent.
FABRIC_CONFIG = fabric.Config(lazy=True, overrides={"load_ssh_configs": False, "forward_agent": False})
KEEPALIVE_SECS = 30
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")  # one pass; others need a second for their MAC
TCP_OPTIONS = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 40_000}


@dataclass(frozen=True)
class Timeouts:
    """Seconds that each step may take."""

    connect: float = 5.0
    login: float = 15.0  # banner, key exchange and authentication together
    channel: float = 5.0
    answer: float = 30.0


class Connection:
    """An open SSH connection with the hops and sockets under it: a jump host has its own."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.hops: list[fabric.Connection] = []

    @property
    def transport(self) -> paramiko.Transport | None:
        return self.hops[-1].client.get_transport() if self.hops else None

    def cut(self) -> None:
        """Shut the sockets down, from any thread: wakes every thread that waits on the connection."""
        for sock in self.sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close without waiting for the host, which may not answer any more."""
        self.cut()
        for hop in reversed(self.hops):
            with suppress(*NETWORK_ERRORS):
                hop.client.close()


def connect(address: Address, timeouts: Timeouts, deadlines: Deadlines) -> Connection:
    """Connect to a host and log in. Raises Unreachable, or Untrusted if the host key or our key is rejected."""
    if not any(map(fingerprint, address.host_keys)):
        raise Unreachable("no host key is pinned for it: `fleet hosts test` shows the one it has")
    connection = connect(address.jump, timeouts, deadlines) if address.jump else Connection()
    policy = PinnedKeys(address.host_keys)
    return _add_hop(connection, address, timeouts, deadlines, policy, _load_key(address))


def read_host_key(address: Address, timeouts: Timeouts, deadlines: Deadlines) -> str:
    """The host key that a host shows, as a line of known_hosts without the host; does not log in.

    Raises Unreachable.
    """
    reader = KeyReader()
    connection = connect(address.jump, timeouts, deadlines) if address.jump else Connection()
    with suppress(Untrusted):
        _add_hop(connection, address, timeouts, deadlines, reader, None)
    return reader.shown


def describe_failure(step: str, why: BaseException, secs: float, is_late: bool) -> str:
    """What went wrong with a step, as part of a sentence."""
    if is_late or isinstance(why, TimeoutError) or "imeout" in str(why):
        return f"{step} took longer than {secs:g} s"
    return f"{step} broke off: {why}" if str(why) else f"{step} broke off"


def _add_hop(
    connection: Connection,
    address: Address,
    timeouts: Timeouts,
    deadlines: Deadlines,
    policy: paramiko.MissingHostKeyPolicy,
    key: paramiko.PKey | None,
) -> Connection:
    """Log in to one host, through the hops so far. Closes all hops on failure."""
    sock = _tunnel(connection, address, timeouts, deadlines) or _open_socket(address, timeouts, connection.sockets)
    hop = fabric.Connection(
        address.hostname, user=address.user, port=address.port, config=FABRIC_CONFIG,
        connect_kwargs={
            "sock": sock, "timeout": timeouts.login, "allow_agent": address.key_path == AGENT, "look_for_keys": False,
            "pkey": key, "banner_timeout": timeouts.login, "auth_timeout": timeouts.login,
            "channel_timeout": timeouts.channel, "transport_factory": _transport_factory(address),
        },
    )  # fmt: skip
    hop.client.set_missing_host_key_policy(policy)
    connection.hops.append(hop)
    with deadlines.within(timeouts.login + 1, connection.cut) as deadline:
        try:
            hop.open()
        except Exception as why:
            transport = connection.transport
            is_rejected = isinstance(why, REJECTIONS) and transport is not None and transport.is_active()
            connection.close()
            _raise(why, is_rejected, address, timeouts.login, deadline.is_late)
    return connection


def _raise(why: Exception, is_rejected: bool, address: Address, secs: float, is_late: bool) -> None:
    """Raise what a failed login means. A login that was cut off says nothing about our key."""
    if is_rejected and "imeout" not in str(why):
        raise Untrusted(f"it refuses our key for the user {address.user}") from why
    if isinstance(why, NETWORK_ERRORS):
        raise Unreachable(describe_failure("connecting", why, secs, is_late)) from why
    raise why


class TunnelSocket:
    """A channel through a jump host, used as a socket. Closing it twice, from either side, is no error."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(*NETWORK_ERRORS):
            self._channel.close()


def _tunnel(connection: Connection, address: Address, timeouts: Timeouts, deadlines: Deadlines) -> TunnelSocket | None:
    """A channel to the address through the last hop; None if there is no hop yet."""
    if connection.transport is None:
        return None
    try:
        with deadlines.within(timeouts.channel, connection.cut):
            where = (address.hostname, address.port)
            channel = connection.transport.open_channel("direct-tcpip", where, ("", 0), timeout=timeouts.channel)
            return TunnelSocket(channel)
    except NETWORK_ERRORS as why:
        connection.close()
        raise Unreachable(describe_failure("the tunnel through its jump host", why, timeouts.channel, False)) from why


def _open_socket(address: Address, timeouts: Timeouts, sockets: list[socket.socket]) -> socket.socket:
    """A connected socket. paramiko itself would give each IP address of a host the whole timeout."""
    try:
        sock = socket.create_connection((address.hostname, address.port), timeout=timeouts.connect)
    except OSError as why:
        raise Unreachable(describe_failure("connecting", why, timeouts.connect, False)) from why
    _set_options(sock)
    sockets.append(sock)
    return sock


def _set_options(sock: socket.socket) -> None:
    """Send without delay, and notice a dead peer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if hasattr(socket, name):  # macOS lacks some
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _transport_factory(address: Address) -> Callable[..., paramiko.Transport]:
    """Makes transports that prefer the types of the pinned host keys, and ciphers that are cheap in Python."""

    def make(sock: Any, **options: Any) -> paramiko.Transport:
        transport = paramiko.Transport(sock, **options)
        transport.set_keepalive(KEEPALIVE_SECS)
        security, pinned = transport.get_security_options(), {line.split()[0] for line in address.host_keys}
        security.ciphers = sorted(security.ciphers, key=lambda cipher: cipher not in FAST_CIPHERS)
        security.key_types = sorted(security.key_types, key=lambda kind: _key_type(kind) not in pinned)
        return transport

    return make


def _key_type(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _load_key(address: Address) -> paramiko.PKey | None:
    """Our private key; None if the ssh-agent has it. Raises Unreachable."""
    path = address.key_path
    if path == AGENT:
        return None
    if path is None:
        raise Unreachable("no key is configured for it: set ssh_key_path")
    try:
        return paramiko.PKey.from_path(path)
    except (PasswordRequiredException, TypeError):
        raise Unreachable(f'the key {path} has a passphrase: use an ssh-agent with ssh_key_path = "agent"') from None
    except OSError as why:
        raise Unreachable(f"the key {path} cannot be read: {why.strerror}") from why
    except (ValueError, UnknownKeyType, paramiko.SSHException) as why:
        raise Unreachable(f"{path} holds no private key that can be used") from why
