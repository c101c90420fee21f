"""Gets in: an SSH connection with pinned host keys, no key but the configured one, a deadline on each step."""

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import paramiko
from fabric import Config, Connection
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import PasswordRequiredException

from workers.errors import Distrusted, Unreachable
from workers.ssh import deadlines
from workers.ssh.host_keys import Curious, Pinned, fingerprint

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it has to say, whoever called says in a sentence
AGENT = "agent"  # as ssh_key_path: the keys of the ssh-agent of whoever runs the workers
TRUST = (paramiko.AuthenticationException, paramiko.BadHostKeyException)
AWAY = (OSError, EOFError, paramiko.SSHException)
# Fabric reads no files of the user's or the machine's, and forwards nothing.
OURS = Config(lazy=True, overrides={"load_ssh_configs": False, "forward_agent": False})
KEEPALIVE_SECS = 30
FASTEST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")  # one pass where others need a second for their MAC
SOCKET = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 40_000}


@dataclass(frozen=True)
class Limits:
    """How many seconds each step may take."""

    connect: float = 5.0
    greet: float = 15.0  # banner, key exchange and authentication together
    channel: float = 5.0
    answer: float = 30.0


@dataclass(frozen=True)
class Address:
    """Where a host is and how to get in: `keys` are its pinned host keys, `via` the host to jump over."""

    host: str
    port: int
    user: str | None
    key_path: str | None
    keys: tuple[str, ...]
    via: "Address | None" = None


class Opened:
    """A connection with the sockets under it: ours, and that to the host we jump over."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.hops: list[Connection] = []

    @property
    def transport(self) -> paramiko.Transport | None:
        return self.hops[-1].client.get_transport() if self.hops else None

    def cut(self) -> None:
        """End it at once, from any thread: whoever waits on it wakes."""
        for sock in self.sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave, without waiting for a host that may not answer any more."""
        self.cut()
        for hop in reversed(self.hops):
            with suppress(*AWAY):
                hop.client.close()


class Through:
    """What a connection over another one takes for its socket: a channel whose end may come from either side."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(*AWAY):
            self._channel.close()


def connect(address: Address, limits: Limits) -> Opened:
    """A connection to a host whose key is pinned. Raises Unreachable or Distrusted."""
    if not any(map(fingerprint, address.keys)):
        raise Unreachable("no host key is pinned for it: `fleet hosts test` shows the one it has")
    opened = Opened()
    if address.via:
        opened = connect(address.via, limits)
    return _hop(opened, address, limits, Pinned(address.keys), _key(address))


def host_key(address: Address, limits: Limits) -> str:
    """The key that a host shows, nobody having looked at it yet. Raises Unreachable."""
    curious = Curious()
    opened = connect(address.via, limits) if address.via else Opened()
    with suppress(Distrusted):
        _hop(opened, address, limits, curious, None)
    return curious.shown


def in_words(what: str, why: BaseException, secs: float, late: bool) -> str:
    """What went wrong with a step, for a sentence."""
    if late or isinstance(why, TimeoutError) or "imeout" in str(why):
        return f"{what} took longer than {secs:g} s"
    return f"{what} broke off: {why}" if str(why) else f"{what} broke off"


def _hop(
    opened: Opened, address: Address, limits: Limits, policy: paramiko.MissingHostKeyPolicy, key: paramiko.PKey | None
) -> Opened:
    """One connection, over the last one of `opened` where there is one; all of them end if it fails."""
    connection = Connection(
        address.host, user=address.user, port=address.port, config=OURS,
        connect_kwargs={
            "sock": _through(opened, address, limits) or _socket(address, limits, opened.sockets),
            "timeout": limits.greet, "allow_agent": address.key_path == AGENT, "look_for_keys": False, "pkey": key,
            "banner_timeout": limits.greet, "auth_timeout": limits.greet, "channel_timeout": limits.channel,
            "transport_factory": _transport_factory(address),
        },
    )  # fmt: skip
    connection.client.set_missing_host_key_policy(policy)
    opened.hops.append(connection)
    with deadlines.watch.within(limits.greet + 1, opened.cut) as step:
        try:
            connection.open()
        except Exception as why:
            transport = opened.transport
            refused = isinstance(why, TRUST) and transport is not None and transport.is_active()
            opened.close()
            _raise(why, refused, address, limits.greet, step.is_late)
    return opened


def _raise(why: Exception, refused: bool, address: Address, secs: float, late: bool) -> None:
    """What a failed connection means. That an authentication was broken off says nothing about our key."""
    if refused and "imeout" not in str(why):
        raise Distrusted(f"it refuses our key for the user {address.user}") from why
    if isinstance(why, AWAY):
        raise Unreachable(in_words("connecting", why, secs, late)) from why
    raise why


def _through(opened: Opened, address: Address, limits: Limits) -> Through | None:
    """The way over the host before this one."""
    if opened.transport is None:
        return None
    try:
        with deadlines.watch.within(limits.channel, opened.cut):
            where = (address.host, address.port)
            return Through(opened.transport.open_channel("direct-tcpip", where, ("", 0), timeout=limits.channel))
    except AWAY as why:
        opened.close()
        raise Unreachable(in_words("the way over the host before it", why, limits.channel, False)) from why


def _socket(address: Address, limits: Limits, sockets: list[socket.socket]) -> socket.socket:
    """A socket that is connected; paramiko would wait for each address of a host as long as for all the rest."""
    try:
        sock = socket.create_connection((address.host, address.port), timeout=limits.connect)
    except OSError as why:
        raise Unreachable(in_words("connecting", why, limits.connect, False)) from why
    _tune(sock)
    sockets.append(sock)
    return sock


def _transport_factory(address: Address) -> Callable[..., paramiko.Transport]:
    """A transport which asks for a kind of host key that is pinned, and for a cipher that is cheap in Python."""

    def make(sock: Any, **how: Any) -> paramiko.Transport:
        transport = paramiko.Transport(sock, **how)
        transport.set_keepalive(KEEPALIVE_SECS)
        options, pinned = transport.get_security_options(), {line.split()[0] for line in address.keys}
        options.ciphers = sorted(options.ciphers, key=lambda cipher: cipher not in FASTEST)
        options.key_types = sorted(options.key_types, key=lambda kind: _plain(kind) not in pinned)
        return transport

    return make


def _plain(kind: str) -> str:
    return "ssh-rsa" if kind.startswith("rsa-sha2-") else kind


def _tune(sock: socket.socket) -> None:
    """Do not wait for more to send; notice a peer that is dead."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in SOCKET.items():
        if hasattr(socket, name):  # macOS has not all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _key(address: Address) -> paramiko.PKey | None:
    """The key we show. Raises Unreachable with what to do where there is none."""
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
