"""Signs and sends webhooks the way Forgejo does: a thread for each hook, one attempt, five seconds."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import random
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

import httpx

from .faults import Faults
from .models import Hook, Json
from .subscriptions import COARSE, passes

TIMEOUT = 5.0
SHUFFLE_WINDOW = 0.05


@dataclass
class Delivery:
    hook_id: int
    url: str
    event: str
    event_type: str
    uuid: str
    headers: dict[str, str]
    raw: bytes
    body: Json
    status: int | None = None
    error: str = ""

    @property
    def action(self) -> str:
        return str(self.body.get("action", ""))

    @property
    def kind(self) -> str:
        return f"{self.event_type}/{self.action}" if self.action else self.event_type


class WebhookSender:
    """Sends each event to the hooks that want it, at most once."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.deliveries: list[Delivery] = []
        self.dropped: list[Delivery] = []
        self.queues: dict[int, queue.Queue[Delivery | None]] = {}
        self.pending = 0
        self.changed = threading.Condition()

    def announce(self, hooks: list[Hook], event_type: str, body: Json, branch: str | None) -> None:
        for hook in hooks:
            if hook.active and event_type in hook.wants and (branch is None or passes(hook.branch_filter, branch)):
                self.send(hook, event_type, body)

    def send(self, hook: Hook, event_type: str, body: Json) -> None:
        delivery = write(hook, event_type, body)
        if self.faults.lost(event_type, delivery.action):
            self.dropped.append(delivery)
            return
        self.put(delivery)
        if self.faults.double:
            self.put(replace(delivery))

    def put(self, delivery: Delivery) -> None:
        with self.changed:
            self.pending += 1
            box = self.queues.get(delivery.hook_id)
            if box is None:
                box = self.queues[delivery.hook_id] = queue.Queue()
                threading.Thread(target=self.walk, args=(box,), daemon=True, name="forge-post").start()
            box.put(delivery)

    def walk(self, box: queue.Queue[Delivery | None]) -> None:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, trust_env=False, verify=False) as client:
            while (delivery := box.get()) is not None:
                for each in self.round(delivery, box):
                    self.carry(client, each)

    def round(self, first: Delivery, box: queue.Queue[Delivery | None]) -> list[Delivery]:
        """What to carry now: one, or with `shuffle` all that comes within a moment, in any order."""
        bag = [first]
        deadline = time.monotonic() + SHUFFLE_WINDOW
        while self.faults.shuffle and (left := deadline - time.monotonic()) > 0:
            try:
                more = box.get(timeout=left)
            except queue.Empty:
                break
            if more is None:
                box.put(None)
                break
            bag.append(more)
        if self.faults.shuffle:
            random.shuffle(bag)
        return bag

    def carry(self, client: httpx.Client, delivery: Delivery) -> None:
        if self.faults.delay:
            time.sleep(self.faults.delay)
        try:
            answer = client.post(delivery.url, content=delivery.raw, headers=delivery.headers)
            delivery.status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            delivery.error = f"{type(problem).__name__}: {problem}"
        with self.changed:
            self.deliveries.append(delivery)
            self.pending -= 1
            self.changed.notify_all()

    def again(self, number: int, new_id: bool) -> None:
        """Replay one: by a human's button it gets a new id; a stray double keeps the old one."""
        old = self.deliveries[number]
        fresh = str(uuid.uuid4()) if new_id else old.uuid
        headers = {name: fresh if name.endswith("-Delivery") else value for name, value in old.headers.items()}
        self.put(replace(old, uuid=fresh, headers=headers, status=None, error=""))

    def wait_until_sent(self, timeout: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.pending == 0, timeout)

    def close(self) -> None:
        with self.changed:
            for box in self.queues.values():
                box.put(None)
            self.queues.clear()


def write(hook: Hook, event_type: str, body: Json) -> Delivery:
    """The request for this hook: body, headers and signatures."""
    if hook.kind == "gitea" and event_type in ("create", "delete"):
        body = {**body, "ref": body["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/")}
    text = go_json(body)
    identity = str(uuid.uuid4())
    headers = {
        "User-Agent": "Go-http-client/1.1",
        **event_headers(event_type, identity),
        **signatures(hook.secret, text),
    }
    if hook.authorization:
        headers["Authorization"] = hook.authorization
    headers["Content-Type"], raw = "application/json", text
    if hook.content_type == "form":
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        raw = str(httpx.QueryParams({"payload": text.decode()})).encode()
    return Delivery(hook.id, hook.url, COARSE[event_type], event_type, identity, headers, raw, json.loads(text))


def event_headers(event_type: str, identity: str) -> dict[str, str]:
    values = {"Delivery": identity, "Event": COARSE[event_type], "Event-Type": event_type}
    brands = ("Forgejo", "Gitea", "Gogs", "GitHub")
    return {f"X-{brand}-{name}": value for brand in brands for name, value in values.items()}


def signatures(secret: str, text: bytes) -> dict[str, str]:
    bare = sign(secret, text, "sha256")
    return {
        **{f"X-{brand}-Signature": bare for brand in ("Forgejo", "Gitea", "Gogs")},
        "X-Hub-Signature": "sha1=" + sign(secret, text, "sha1"),
        "X-Hub-Signature-256": "sha256=" + bare,
    }


def sign(secret: str, text: bytes, how: str = "sha256") -> str:
    return hmac.new(secret.encode(), text, getattr(hashlib, how)).hexdigest() if secret else ""


def go_json(value: Any) -> bytes:
    """Go's MarshalIndent: two spaces, and < > & (and two line separators) escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()
