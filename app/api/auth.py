"""Authenticates callers by bearer token, and checks their role. Tokens are compared by hash."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import current_app, g, request
from werkzeug.exceptions import HTTPException

from app.domain.errors import Kind, Refused
from app.ports import Fleet
from app.services.agents import registry
from app.services.agents.registry import hash_of
from app.store import agents
from app.store.engine import reading_connection

P = ParamSpec("P")
R = TypeVar("R")


class Role(StrEnum):
    """Whose token the request shows."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    AGENT = "agent"


_TOKENS = (("FLEET_OPERATOR_TOKEN", Role.OPERATOR), ("FLEET_VIEWER_TOKEN", Role.VIEWER))


@dataclass(frozen=True)
class Caller:
    """The authenticated caller; `agent_id` is None unless it is an agent."""

    role: Role
    agent_id: str | None = None


def fleet() -> Fleet:
    """The configuration, database and forges of this application."""
    found: Fleet = current_app.extensions["fleet"]
    return found


def allow(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: only callers with one of these roles reach the view."""

    def guarded(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guard(*args: P.args, **kwargs: P.kwargs) -> R:
            authenticate(*roles)
            return view(*args, **kwargs)

        return guard

    return guarded


def allow_checked_by_view(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator for views that authenticate themselves. If the request is invalid, a missing login is reported before
    the validation error."""

    def guarded(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guard(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return view(*args, **kwargs)
            except HTTPException:
                authenticate(*roles)
                raise
            except Refused as refused:
                if refused.kind is Kind.INVALID:
                    authenticate(*roles)
                raise

        return guard

    return guarded


def allow_enrolment(view: Callable[P, R]) -> Callable[P, R]:
    """Decorator: only callers that may register an agent reach the view. The view checks which agent."""

    @wraps(view)
    def guard(*args: P.args, **kwargs: P.kwargs) -> R:
        registry.check_may_register(fleet(), bearer_token())
        return view(*args, **kwargs)

    return guard


def authenticate(*roles: Role, by: str | None = None) -> None:
    """Authenticate the caller `by` a token, the bearer token by default. Raises Refused unless a role fits."""
    if fleet().config.secret("FLEET_OPERATOR_TOKEN") is None and Role.AGENT not in roles:
        raise Refused(Kind.UNAUTHORIZED, "No operator token is set: set FLEET_OPERATOR_TOKEN for the web process.")
    g.caller = _identify(bearer_token() if by is None else by)
    if g.caller.role not in roles:
        wanted = " or ".join(roles)
        raise Refused(Kind.FORBIDDEN, f"A token of role '{g.caller.role}' may not do this: use one of role {wanted}.")


def caller() -> Caller:
    """The caller that `authenticate` found."""
    found: Caller = g.caller
    return found


def check_is_caller(agent_id: str) -> str:
    """Return the agent id of the request. Raises Refused unless it is the caller's own."""
    own = caller().agent_id
    if own != agent_id:
        with reading_connection(fleet().engine) as conn:
            known = agents.get(conn, agent_id)
        if known is None:
            raise Refused(Kind.UNKNOWN, f"There is no agent {agent_id!r}: register it first.")
        raise Refused(Kind.FORBIDDEN, f"This token belongs to agent {own!r}, not to {agent_id!r}.")
    return agent_id


def bearer_token() -> str:
    """The bearer token of the request; empty if none.

    No other scheme counts: a browser sends saved passwords by itself, so other sites could act for its user.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def basic_password() -> str:
    """The token that a browser sends as a password; empty if none. Only for pages that change nothing."""
    given = request.authorization
    return (given.password or "") if given is not None and given.type == "basic" else ""


def _identify(token: str) -> Caller:
    for name, role in _TOKENS:
        expected = fleet().config.secret(name)
        if expected and hmac.compare_digest(hash_of(token), hash_of(expected)):
            return Caller(role)
    with reading_connection(fleet().engine) as conn:
        agent_id = agents.id_of_token(conn, hash_of(token), fleet().clock()) if token else None
    if agent_id is None:
        raise Refused(Kind.UNAUTHORIZED, "Show a valid token: Authorization: Bearer <token>.")
    return Caller(Role.AGENT, agent_id)
