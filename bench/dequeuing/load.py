"""HTTP clients that use little CPU: one thread, raw sockets, requests prepared in advance."""

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

BASE = "/api/v1"
Next = Callable[[bytes], bytes]  # the answer before -> the request that follows


def post(path: str, token: str, body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    head = (
        f"POST {BASE}{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


class Client:
    """One connection. The next request depends on the last response."""

    def __init__(self, port: int, next_: Next) -> None:
        self.link = socket.create_connection(("127.0.0.1", port))
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next, self.received, self.answered = next_, b"", 0

    def ask(self, before: bytes = b"") -> None:
        self.link.sendall(self.next(before))

    def receive(self) -> bytes | None:
        """The body of an answer once it is whole; None before that."""
        piece = self.link.recv(1 << 18)
        if not piece:
            raise ConnectionError("the web process closed the connection")
        self.received += piece
        head, gap, body = self.received.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return None
        status = int(head[9:12])
        if status not in (200, 204):
            raise ValueError(f"answered {status}: {body[:200]!r}")
        self.received, self.answered = b"", self.answered + 1
        return body


def drive(port: int, nexts: list[Next], seconds: float) -> float:
    """Have one client for each of `nexts` ask without pause; returns the answers a second."""
    clients = [Client(port, next_) for next_ in nexts]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.link, selectors.EVENT_READ, client)
            client.ask()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for key, _ in selector.select(0.1):
                body = key.data.receive()
                if body is not None:
                    key.data.ask(body)
        took = time.monotonic() - began
    for client in clients:
        client.link.close()
    return sum(client.answered for client in clients) / took


def dequeues(agents: list[tuple[str, str]], most: int) -> Next:
    """Ask for up to `most` tasks, each time as another agent."""
    requests = [post("/tasks/dequeue", token, {"agent_id": name, "max_tasks": most}) for name, token in agents]
    turns = _for_ever(requests)
    return lambda _: next(turns)


def dequeues_and_completes(agents: list[tuple[str, str]], most: int, done: list[int]) -> Next:
    """Take up to `most` tasks, complete each, take the next; counts those that are done in `done`."""
    turns = _for_ever(agents)
    open_: list[tuple[tuple[str, str], dict[str, Any]]] = []

    def following(before: bytes) -> bytes:
        told = json.loads(before) if before else {}
        if "lease_expires_at" in told or "tasks" in told:
            agent = following.agent  # type: ignore[attr-defined]
            open_.extend((agent, task) for task in told.get("tasks", [told]))
        else:
            done[0] += bool(before)
        if open_:
            (name, token), task = open_.pop()
            path = f"/tasks/{quote(task['task_id'], safe='')}/complete"
            return post(path, token, {"agent_id": name, "lease": task["lease"], "status": "completed"})
        following.agent = name, token = next(turns)  # type: ignore[attr-defined]
        return post("/tasks/dequeue", token, {"agent_id": name, "max_tasks": most})

    return following


def _for_ever(things: list[Any]) -> Iterator[Any]:
    while True:
        yield from things


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    return 0
