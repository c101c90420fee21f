"""Finds faults in the setup between the fleet and its forges, and says how to fix them (`fleet doctor`)."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from app.domain.errors import Refused, Unavailable
from app.domain.repository import ForgeRecord, Rule, has_wildcard
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.ports import Fleet
from app.services import receipt_key
from app.services.forge.deliveries import NO_TASK
from app.store import deliveries, fleet_config, outbox, periodic_jobs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Clients = Callable[[str], HttpClient]  # a client by the forge's name
QUIET, RECENT = timedelta(days=2), timedelta(hours=1)
MANY_TRIES = 3
GOOD, WRONG, UNSURE = "good", "wrong", "unsure"


@dataclass(frozen=True)
class Finding:
    """What was checked, its state (good, wrong or unsure), a sentence about it, and how to fix it."""

    about: str
    state: str
    said: str
    mend: str = ""


def examine(fleet: Fleet, client: Clients, admin: Clients | None = None) -> list[Finding]:
    """Check everything, one finding per check. `client` gives a forge's client with the bot's token, `admin` one with a
    token that may list hooks."""
    with fleet.engine.begin() as conn:
        forges, rules = fleet_config.all_forges(conn), fleet_config.all_rules(conn)
    if not forges:
        return [Finding("fleet.toml", WRONG, "no forge is declared", "Declare [forges.NAME], then `fleet apply FILE`.")]
    found = [finding for forge in forges for finding in _check_forge(fleet, forge, rules, client, admin or client)]
    return [*check_ourselves(fleet, forges), *check_secrets(fleet, forges), *found, *_check_queues(fleet, forges)]


def check(fleet: Fleet, forge: ForgeRecord, client: HttpClient, where: str) -> list[Finding]:
    """Check what a new hook of `where`, a repository or an organisation, needs: our address and the bot's token."""
    found = [*check_ourselves(fleet, [forge]), *_check_token(forge, client)]
    return [*found, *(_check_repository(fleet, client, where, None, client) if "/" in where else ())]


# --- our side --------------------------------------------------------------------------------------------


def check_ourselves(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    """Check our address and our receipt key."""
    host, bind = urlsplit(fleet.config.public_url).hostname or "", fleet.config.bind
    forge_hosts = [urlsplit(forge.url).hostname or "" for forge in forges]
    if _is_loopback(host) and not all(_is_loopback(one) for one in forge_hosts):
        yield Finding(
            "FLEET_PUBLIC_URL", WRONG, f"{fleet.config.public_url} is the forge itself when the forge calls it",
            "Set FLEET_PUBLIC_URL to an address at which the forge reaches this machine.",
        )  # fmt: skip
    elif _is_loopback(bind) and not _is_loopback(host):
        yield Finding(
            "FLEET_BIND", UNSURE, f"the web process listens on {bind} only",
            "Set FLEET_BIND=0.0.0.0, unless a proxy on this machine forwards to it.",
        )  # fmt: skip
    else:
        yield Finding("FLEET_PUBLIC_URL", GOOD, fleet.config.public_url)
    yield from check_callable(host)
    try:
        yield Finding("receipt key", GOOD, receipt_key.public_key(fleet))
    except (Refused, OSError) as error:
        yield Finding("receipt key", WRONG, str(error), "Set FLEET_RECEIPT_KEY to 64 hex digits, or unset it.")


def check_secrets(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    """Two forges with the same secret could send deliveries in each other's name."""
    owners: dict[str, str] = {}
    for forge in forges:
        secret = fleet.config.secret(forge.webhook_secret_env, forge.webhook_secret_file) or ""
        other = owners.setdefault(secret, forge.name)
        if secret and other != forge.name:
            yield Finding(
                f"{forge.name}: webhook secret", UNSURE, f"{other} has the same one",
                f"Give it a secret of its own: webhook_secret_env under [forges.{forge.name}] in fleet.toml.",
            )  # fmt: skip


def check_callable(host: str) -> Iterator[Finding]:
    """Check whether the forge will call our host name. It resolves the name as we do, and by default calls only public
    addresses."""
    addresses = _addresses(host)
    if not addresses:
        yield Finding(
            "FLEET_PUBLIC_URL", UNSURE, f"the name {host} cannot be resolved here",
            "Make sure that the forge can resolve it, or set FLEET_PUBLIC_URL to an address.",
        )  # fmt: skip
    private = next((one for one in addresses if not one.is_global), None)
    if private:
        shown = host if host == str(private) else f"{host} ({private})"
        yield Finding(
            "ALLOWED_HOST_LIST", UNSURE, f"{shown} is not a public address, and by default Forgejo calls only those",
            f"On the forge: [webhook] ALLOWED_HOST_LIST = external,{host} "
            "(in a container FORGEJO__webhook__ALLOWED_HOST_LIST), then restart it.",
        )  # fmt: skip


def _addresses(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- a forge ---------------------------------------------------------------------------------------------


def _check_forge(
    fleet: Fleet, forge: ForgeRecord, rules: list[Rule], clients: Clients, admin: Clients
) -> Iterator[Finding]:
    name = forge.name
    if not fleet.config.secret(forge.webhook_secret_env, forge.webhook_secret_file):
        fix = f"Set {forge.webhook_secret_env}."
        yield Finding(f"{name}: webhook secret", WRONG, "it is missing, so every delivery is refused", fix)
    try:
        client = clients(name)
        version = client.get("/version").get("version", "")
        yield Finding(f"{name}: reached", GOOD, f"{forge.url} has version {version}")
    except Unavailable as away:
        return (yield Finding(f"{name}: reached", WRONG, str(away), "Check `url` in fleet.toml and the network."))
    except Refused as no:
        return (yield Finding(f"{name}: token", WRONG, str(no), "Give the bot a token; see docs/forgejo.md."))
    yield from _check_token(forge, client)
    for rule in (rule for rule in rules if rule.forge == name):
        yield from _check_repository(fleet, client, rule.name, rule.flow, admin(name))


def _check_token(forge: ForgeRecord, client: HttpClient) -> Iterator[Finding]:
    about = f"{forge.name}: token"
    answer = client.send("GET", "/user", ok={401, 403})
    if answer.status_code == 401:
        yield Finding(about, WRONG, "the forge does not accept it", f"Set {forge.token_env} to a valid token.")
    elif answer.status_code == 403 and not forge.bot_id:
        yield Finding(
            about, WRONG, "it may not ask who it belongs to, so our own actions cannot be told from those of others",
            "Give it the scope read:user, or set `bot_id` of the account in fleet.toml.",
        )  # fmt: skip
    elif answer.is_success and answer.json().get("is_admin"):
        yield Finding(
            about, UNSURE, f"{answer.json()['login']} is an administrator of the whole forge",
            "An ordinary account with Write on its repositories is enough.",
        )  # fmt: skip
    elif answer.is_success:
        yield Finding(about, GOOD, f"it belongs to {answer.json()['login']} (id {answer.json()['id']})")


def _check_repository(
    fleet: Fleet, client: HttpClient, name: str, flow: str | None, admin: HttpClient
) -> Iterator[Finding]:
    if has_wildcard(name):
        owner = name.split("/", 1)[0]
        return (yield from [] if has_wildcard(owner) else _check_hooks(fleet, admin, owner, name))
    answer = client.send("GET", f"/repos/{name}", ok={401, 403, 404})
    if not answer.is_success:
        fix = "Make the bot a collaborator with Write; check the name."
        return (yield Finding(name, WRONG, f"the forge answers {answer.status_code}", fix))
    found = answer.json()
    current = found.get("full_name", name)
    if current.lower() != name.lower():
        fix = "Write the new name into fleet.toml, then `fleet apply FILE`."
        return (yield Finding(name, WRONG, f"it is called {current} now, and its new issues are ignored", fix))
    may_push = bool((found.get("permissions") or {}).get("push"))
    yield from _check_access(client, name, bool(found.get("archived")), may_push, flow)
    yield from _check_hooks(fleet, admin, name, name)


def _check_access(client: HttpClient, name: str, archived: bool, may_push: bool, flow: str | None) -> Iterator[Finding]:
    if archived:
        yield Finding(
            name, WRONG, "it is archived and accepts no changes", "Remove it from fleet.toml, or unarchive it."
        )
    elif not may_push and flow == "agit":
        yield Finding(
            name, UNSURE, "the bot may push to refs/for/, but may set no label, assignee, reviewer or commit status",
            "If you want those, make the bot a collaborator with Write.",
        )  # fmt: skip
    elif not may_push:
        yield Finding(name, WRONG, "the bot may not write to it", "Make the bot a collaborator with Write.")
    else:
        yield from _check_scopes(client, name)


# These calls change nothing, since nothing has the number 0. The forge checks the scope first.
_PROBES = (
    ("write:issue", "PATCH", "/repos/{name}/issues/comments/0", {"body": "x"}),
    ("write:repository", "PATCH", "/repos/{name}/pulls/0", {"title": "x"}),
)


def _check_scopes(client: HttpClient, name: str) -> Iterator[Finding]:
    missing = [
        scope
        for scope, method, path, body in _PROBES
        if client.send(method, path.format(name=name), body, ok={401, 403, 404, 405, 422}).status_code in (401, 403)
    ]
    if missing:
        scopes = ", ".join(missing)
        fix = f"Create a token with {scopes}. Scopes cannot be added to an existing token."
        yield Finding(name, WRONG, f"the token lacks the scope {scopes}", fix)
    else:
        yield Finding(name, GOOD, "the bot can see it and write to it")


def _check_hooks(fleet: Fleet, client: HttpClient, where: str, name: str) -> Iterator[Finding]:
    about, url = f"{name}: hook", f"{fleet.config.public_url}{hooks.PATH}"
    owner = where.partition("/")[0]
    own, shared = hooks.list_hooks(client, where), hooks.list_hooks(client, owner) if owner != where else []
    add = f"`fleet forge add {where}` creates it, with a token that may do so."
    if own is None and not shared:
        fix = f"Run `fleet doctor` with an administrator's token in FLEET_SETUP_TOKEN. If there is no hook yet: {add}"
        return (yield Finding(about, UNSURE, "this token may not see hooks", fix))
    ours = [hook for hook in [*(own or []), *(shared or [])] if hook.url.rstrip("/").endswith("/webhooks/forgejo")]
    if not ours and shared is None:
        yield Finding(about, UNSURE, "it has no hook to this fleet, and this token may not see its owner's hooks", add)
    elif not ours:
        yield Finding(about, WRONG, "there is no hook to this fleet, so work starts up to a minute late", add)
    for hook in ours:
        faults = hook.faults()
        faults += [f"it calls {hook.url}, but FLEET_PUBLIC_URL says {url}"] if hook.url != url else []
        yield Finding(about, WRONG if faults else GOOD, "; ".join(faults) or hook.url, add if faults else "")


# --- the queues ------------------------------------------------------------------------------------------


def _check_queues(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    with fleet.engine.begin() as conn:
        received = deliveries.last_received(conn)
        waiting = [one for one in deliveries.list_deliveries(conn, deliveries.WAITING) if one.tries > MANY_TRIES]
        given_up, refused = outbox.count_given_up(conn), periodic_jobs.last_run(conn, deliveries.REFUSED)
    newest = max(received.values(), default=None)
    if refused and (newest is None or refused > newest or fleet.clock() - refused < RECENT):
        yield Finding(  # unsure, since any sender who knows our address can cause it
            "webhook secret", UNSURE,
            f"a delivery with a wrong secret was refused at {refused:%Y-%m-%d %H:%M:%S} UTC",
            "`fleet forge add REPOSITORY --anew` gives its hook our secret.",
        )  # fmt: skip
    for forge in forges:
        last = received.get(forge.name)
        if last is None or fleet.clock() - last > QUIET:
            yield Finding(
                f"{forge.name}: deliveries", UNSURE,
                f"none since {last:%Y-%m-%d %H:%M} UTC" if last else "none was ever received",
                "The hook's recent deliveries on the forge say why they do not arrive.",
            )  # fmt: skip
        else:
            yield Finding(f"{forge.name}: deliveries", GOOD, f"the last was received at {last:%Y-%m-%d %H:%M:%S} UTC")
    stuck = [one for one in waiting if not (one.why or "").startswith(NO_TASK)]
    if stuck:
        fix = f"See `fleet deliveries list --status waiting`. The last one says: {stuck[0].why}"
        yield Finding("inbox", WRONG, f"{len(stuck)} deliveries were tried more than {MANY_TRIES} times", fix)
    if given_up:
        yield Finding("outbox", UNSURE, f"forges refused {given_up} entries for good", "See `fleet task show`.")
