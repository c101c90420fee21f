"""Finds what is set up wrong between us and the forges, and says how to mend it."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from app.domain.errors import Refused, Unavailable
from app.domain.repository import ForgeRecord, Rule
from app.forgejo import hooks
from app.forgejo.http import HttpClient
from app.ports import Fleet
from app.services import receipt_key
from app.services.forge.deliveries import NO_TASK
from app.store import deliveries, fleet_config, outbox, periodic_jobs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
QUIET, LATELY = timedelta(days=2), timedelta(hours=1)
GOOD, WRONG, UNSURE = "good", "wrong", "unsure"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and for what is not good how to mend it."""

    about: str
    state: str
    said: str
    mend: str = ""


def examine(
    fleet: Fleet, wire: Callable[[str], HttpClient], admin: Callable[[str], HttpClient] | None = None
) -> list[Finding]:
    """Everything that is known to go wrong, one finding each. `wire` gives a forge's own client by name, `admin` that
    of whoever may see its hooks, if there is any."""
    with fleet.engine.begin() as conn:
        forges, rules = fleet_config.all_forges(conn), fleet_config.all_rules(conn)
    if not forges:
        return [Finding("fleet.toml", WRONG, "no forge is declared", "Declare [forges.NAME], then `fleet apply FILE`.")]
    found = [finding for row in forges for finding in _forge(fleet, row, rules, wire, admin or wire)]
    return [*_ourselves(fleet, forges), *_secrets(fleet, forges), *found, *_inbox(fleet, forges)]


def check(fleet: Fleet, row: ForgeRecord, wire: HttpClient, where: str) -> list[Finding]:
    """What keeps the hook of one repository or organisation from bringing us anything, and our token from answering."""
    found = [*_ourselves(fleet, [row]), *_token(row, wire)]
    return [*found, *(_repository(fleet, wire, where, None, wire) if "/" in where else ())]


# --- on our side -----------------------------------------------------------------------------------------


def _ourselves(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    ours, bind = urlsplit(fleet.config.public_url), fleet.config.bind
    theirs = [urlsplit(row.url).hostname or "" for row in forges]
    if _is_loopback(ours.hostname or "") and not all(_is_loopback(host) for host in theirs):
        yield Finding(
            "FLEET_PUBLIC_URL", WRONG, f"{fleet.config.public_url} means the forge itself when the forge calls it",
            "Set FLEET_PUBLIC_URL to an address by which the forge reaches this machine.",
        )  # fmt: skip
    elif _is_loopback(bind) and not _is_loopback(ours.hostname or ""):
        yield Finding(
            "FLEET_BIND", UNSURE, f"the web process listens on {bind} alone",
            "Unless a proxy stands before it, set FLEET_BIND=0.0.0.0.",
        )  # fmt: skip
    else:
        yield Finding("FLEET_PUBLIC_URL", GOOD, fleet.config.public_url)
    yield from _called(ours.hostname or "")
    try:
        yield Finding("receipt key", GOOD, receipt_key.public_key(fleet))
    except (Refused, OSError) as wrong:
        yield Finding("receipt key", WRONG, str(wrong), "Give FLEET_RECEIPT_KEY 64 hex digits, or leave it out.")


def _secrets(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    """Two forges with one secret could speak for each other, but for the address that their deliveries name."""
    known: dict[str, str] = {}
    for row in forges:
        secret = fleet.config.secret(row.webhook_secret_env, row.webhook_secret_file) or ""
        other = known.setdefault(secret, row.name)
        if secret and other != row.name:
            yield Finding(
                f"{row.name}: webhook secret", UNSURE, f"{other} has the same one",
                f"Give it a secret of its own: webhook_secret_env under [forges.{row.name}] in fleet.toml.",
            )  # fmt: skip


def _called(host: str) -> Iterator[Finding]:
    """Whether the forge will call this name: it asks the name service as we do, and calls public addresses alone."""
    addresses = _addresses(host)
    if not addresses:
        yield Finding(
            "FLEET_PUBLIC_URL", UNSURE, f"{host} is a name that nobody knows here",
            "Make sure that the forge knows it, or set FLEET_PUBLIC_URL to an address.",
        )  # fmt: skip
    private = next((one for one in addresses if not one.is_global), None)
    if private:
        means = host if host == str(private) else f"{host} ({private})"
        yield Finding(
            "ALLOWED_HOST_LIST", UNSURE, f"{means} is not a public address, and Forgejo calls only those",
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


def _forge(
    fleet: Fleet,
    row: ForgeRecord,
    rules: list[Rule],
    wire: Callable[[str], HttpClient],
    admin: Callable[[str], HttpClient],
) -> Iterator[Finding]:
    name = row.name
    if not fleet.config.secret(row.webhook_secret_env, row.webhook_secret_file):
        variable = row.webhook_secret_env
        yield Finding(
            f"{name}: webhook secret", WRONG, "there is none, so every delivery is refused", f"Set {variable}."
        )
    try:
        forge = wire(name)
        version = forge.get("/version").get("version", "")
        yield Finding(f"{name}: reached", GOOD, f"{row.url} is version {version}")
    except Unavailable as away:
        return (yield Finding(f"{name}: reached", WRONG, str(away), "Check `url` in fleet.toml and the network."))
    except Refused as no:
        return (yield Finding(f"{name}: token", WRONG, str(no), "Give the bot a token; see docs/forgejo.md."))
    yield from _token(row, forge)
    for rule in (rule for rule in rules if rule.forge == name):
        yield from _repository(fleet, forge, rule.name, rule.flow, admin(name))


def _token(row: ForgeRecord, forge: HttpClient) -> Iterator[Finding]:
    about = f"{row.name}: token"
    answer = forge.send("GET", "/user", ok={401, 403})
    if answer.status_code == 401:
        yield Finding(about, WRONG, "the forge does not know it", f"Set {row.token_env} to a token that is good.")
    elif answer.status_code == 403 and not row.bot_id:
        yield Finding(
            about, WRONG, "it may not ask who it belongs to, so our own echo cannot be told from others",
            "Give it the scope read:user, or name the account with `bot_id` in fleet.toml.",
        )  # fmt: skip
    elif answer.is_success and answer.json().get("is_admin"):
        yield Finding(
            about, UNSURE, f"{answer.json()['login']} is an administrator of the whole forge",
            "An ordinary account with Write on its repositories is enough.",
        )  # fmt: skip
    elif answer.is_success:
        yield Finding(about, GOOD, f"it belongs to {answer.json()['login']} (id {answer.json()['id']})")


def _repository(fleet: Fleet, forge: HttpClient, name: str, flow: str | None, admin: HttpClient) -> Iterator[Finding]:
    if set(name) & set("*?["):
        owner = name.split("/", 1)[0]
        return (yield from [] if set(owner) & set("*?[") else _hook(fleet, admin, owner, name))
    answer = forge.send("GET", f"/repos/{name}", ok={401, 403, 404})
    if not answer.is_success:
        yield Finding(
            name,
            WRONG,
            f"the forge answers {answer.status_code}",
            "Make the bot a collaborator with Write; check the name.",
        )
        return
    found = answer.json()
    if found.get("full_name", name).lower() != name.lower():
        yield Finding(
            name, WRONG, f"it is called {found['full_name']} now, and new issues of it are not taken",
            "Write the new name into fleet.toml, then `fleet apply FILE`.",
        )  # fmt: skip
        return
    if found.get("archived"):
        yield Finding(name, WRONG, "it is archived, and takes nothing", "Take it out of fleet.toml, or un-archive it.")
    elif not (found.get("permissions") or {}).get("push") and flow == "agit":
        yield Finding(
            name, UNSURE, "the bot may push to refs/for/ here, but set no label, assignee, reviewer or commit status",
            "If those are wanted, make the bot a collaborator with Write.",
        )  # fmt: skip
    elif not (found.get("permissions") or {}).get("push"):
        yield Finding(name, WRONG, "the bot may not write to it", "Make the bot a collaborator with Write.")
    else:
        yield from _scopes(forge, name)
    yield from _hook(fleet, admin, name, name)


# Calls that change nothing, since nothing has the number 0; a token without the scope is refused before that is seen.
_PROBES = (
    ("write:issue", "PATCH", "/repos/{name}/issues/comments/0", {"body": "x"}),
    ("write:repository", "PATCH", "/repos/{name}/pulls/0", {"title": "x"}),
)


def _scopes(forge: HttpClient, name: str) -> Iterator[Finding]:
    lacks = [
        scope
        for scope, method, path, body in _PROBES
        if forge.send(method, path.format(name=name), body, ok={401, 403, 404, 405, 422}).status_code in (401, 403)
    ]
    if lacks:
        mend = f"Make a token with {', '.join(lacks)} (scopes cannot be added to one that is there)."
        yield Finding(name, WRONG, f"the token lacks the scope {', '.join(lacks)}", mend)
    else:
        yield Finding(name, GOOD, "it can be seen and written to")


def _hook(fleet: Fleet, forge: HttpClient, where: str, name: str) -> Iterator[Finding]:
    about, url = f"{name}: hook", f"{fleet.config.public_url}{hooks.PATH}"
    found = hooks.list_hooks(forge, where)
    add = f"`fleet forge add {where}` makes it, given a token that may."
    owner = where.partition("/")[0]
    shared = hooks.list_hooks(forge, owner) if owner != where else []
    if found is None and not shared:
        yield Finding(
            about, UNSURE, "this token may not see hooks",
            f"Run `fleet doctor` with an admin's token in FLEET_SETUP_TOKEN. If there is none yet: {add}",
        )  # fmt: skip
        return
    ours = [hook for hook in [*(found or []), *(shared or [])] if hook.url.rstrip("/").endswith("/webhooks/forgejo")]
    if not ours and shared is None:
        yield Finding(about, UNSURE, "it has none to this fleet, and its owner's may not be seen by this token", add)
    elif not ours:
        yield Finding(about, WRONG, "there is none to this fleet; work starts up to a minute late", add)
    for hook in ours:
        faults = hook.faults()
        faults += [f"it calls {hook.url}, and FLEET_PUBLIC_URL says {url}"] if hook.url != url else []
        yield Finding(about, WRONG if faults else GOOD, "; ".join(faults) or hook.url, add if faults else "")


# --- what came in, and what could not go out -------------------------------------------------------------


def _inbox(fleet: Fleet, forges: list[ForgeRecord]) -> Iterator[Finding]:
    with fleet.engine.begin() as conn:
        heard = deliveries.last_received(conn)
        waiting = [row for row in deliveries.list_deliveries(conn, deliveries.WAITING) if row.tries > 3]
        given_up, refused = outbox.count_given_up(conn), periodic_jobs.last(conn, deliveries.REFUSED)
    stuck = [row for row in waiting if not (row.why or "").startswith(NO_TASK)]
    newest = max((at for at in heard.values() if at), default=None)
    if refused and (newest is None or refused > newest or fleet.clock() - refused < LATELY):
        yield Finding(  # whoever knows our address can bring such a one
            "webhook secret", UNSURE,
            f"a delivery with another secret than ours was refused at {refused:%Y-%m-%d %H:%M:%S} UTC",
            "`fleet forge add REPOSITORY --anew` gives its hook our secret.",
        )  # fmt: skip
    for row in forges:
        last = heard.get(row.name)
        if last is None or fleet.clock() - last > QUIET:
            yield Finding(
                f"{row.name}: deliveries", UNSURE, f"none since {last:%Y-%m-%d %H:%M}" if last else "none ever came",
                "Look at the hook's recent deliveries on the forge: it says there why they do not arrive.",
            )  # fmt: skip
        else:
            yield Finding(f"{row.name}: deliveries", GOOD, f"the last came at {last:%Y-%m-%d %H:%M:%S} UTC")
    if stuck:
        mend = f"`fleet deliveries list --status waiting`; the last one says: {stuck[0].why}"
        yield Finding("inbox", WRONG, f"{len(stuck)} deliveries were tried again and again", mend)
    if given_up:
        yield Finding(
            "outbox", UNSURE, f"{given_up} were refused by a forge and given up", "`fleet task show` has each."
        )
