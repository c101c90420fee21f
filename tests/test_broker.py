"""The nudge as a broker receives it: one message for a burst, and again when the broker is back."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from fakeredis import TcpFakeServer

from app.broker import PAUSE_SECS, QUEUE, WORK, Nudge
from tests.patience import wait_until


class Broker:
    """A broker on a port of this machine."""

    def __init__(self, port: int = 0) -> None:
        self._server = TcpFakeServer(("127.0.0.1", port))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._redis = redis.Redis(port=self.port)
        threading.Thread(target=self._server.serve_forever, name="broker", daemon=True).start()

    @property
    def messages(self) -> list[bytes]:
        found: list[bytes] = self._redis.lrange(QUEUE, 0, -1)  # type: ignore[assignment]
        return found

    def stop(self) -> None:
        self._redis.close()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def a_broker(port: int = 0) -> Iterator[Broker]:
    broker = Broker(port)
    yield broker
    broker.stop()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with a_broker() as broker:
        yield broker


def nudge_at(port: int) -> Nudge:
    return Nudge(f"redis://127.0.0.1:{port}/0", away_secs=0)


def is_quiet() -> bool:
    return "nudge" not in {thread.name for thread in threading.enumerate()}


def test_a_nudge_is_a_message_with_the_name_of_the_work_that_expires(broker: Broker) -> None:
    nudge_at(broker.port).soon()
    wait_until(is_quiet, "the end of sending")
    [message] = [json.loads(message) for message in broker.messages]
    assert (message["headers"]["task"], bool(message["headers"]["expires"])) == (WORK, True)


def test_a_burst_is_few_messages(broker: Broker) -> None:
    nudge, began = nudge_at(broker.port), time.monotonic()
    for _ in range(500):
        nudge.soon()
    wait_until(is_quiet, "the end of sending")
    assert 1 <= len(broker.messages) <= 2 + (time.monotonic() - began) / PAUSE_SECS


def test_calls_while_the_broker_is_away_raise_nothing_and_send_nothing() -> None:
    with a_broker() as gone:
        port = gone.port
    nudge_at(port).soon()
    wait_until(is_quiet, "the end of the try")
    with a_broker(port) as back:
        assert back.messages == []


def test_messages_arrive_again_when_the_broker_is_back() -> None:
    with a_broker() as first:
        nudge = nudge_at(first.port)
        nudge.soon()
        wait_until(lambda: first.messages, "the first message")
    nudge.soon()  # lost: there is no broker
    wait_until(is_quiet, "the end of the try")
    with a_broker(first.port) as second:
        wait_until(lambda: second.messages, "a message after the broker is back", meanwhile=nudge.soon)
