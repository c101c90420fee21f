"""Proxies a TCP connection that can go silent: it drops all bytes, and neither refuses nor closes anything."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NEWKEYS = 21  # the last message before encryption: authentication follows


class Wire:
    """A TCP proxy to (host, port). `silent` drops everything. `until_keys` goes silent after the key exchange.
    `deaf_after` drops the host's answers after so many more bytes from the client."""

    def __init__(self, host: str, port: int, silent: bool = False, until_keys: bool = False) -> None:
        self.to, self.silent, self.until_keys = (host, port), silent, until_keys
        self.deaf_after: int | None = None
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = [self._listener]
        self.connections = 0
        self.answered = 0  # bytes from the host
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self.to)
                self._ends += [near, far]
                self.connections += 1
                for source, sink, ours in ((near, far, True), (far, near, False)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._carry, args=(source, sink, ours), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        seen = b""
        with suppress(OSError):
            while data := source.recv(65536):
                self.answered += 0 if from_client else len(data)
                if self.until_keys and from_client and not self.silent:
                    seen += data
                    self.silent = has_new_keys(seen)
                if self.deaf_after is not None and from_client:
                    self.deaf_after -= len(data)
                deaf = self.deaf_after is not None and self.deaf_after <= 0 and not from_client
                if not self.silent and not deaf:
                    sink.sendall(data)
            if not self.silent:
                sink.shutdown(socket.SHUT_WR)


def has_new_keys(said: bytes) -> bool:
    """Whether a client has sent NEWKEYS, as its bytes so far show."""
    _, _, rest = said.partition(b"\r\n")
    while len(rest) >= 6:
        (length,) = struct.unpack(">I", rest[:4])
        if rest[5] == NEWKEYS:
            return True
        rest = rest[4 + length :]
    return False


@contextmanager
def wire(host: str, port: int, silent: bool = False, until_keys: bool = False) -> Iterator[Wire]:
    made = Wire(host, port, silent, until_keys)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def nobody_accepts(address: str) -> Iterator[int]:
    """A port with a full queue: a connection to it is neither accepted nor refused."""
    with socket.create_server((address, 0), backlog=0) as listener:
        port = int(listener.getsockname()[1])
        ends = [socket.socket() for _ in range(4)]
        for end in ends:
            end.setblocking(False)
            with suppress(BlockingIOError):
                end.connect((address, port))
        yield port
        for end in ends:
            end.close()
