"""Errors of a host call: unreachable, unable, untrusted, not contacted."""


class Unreachable(Exception):
    """The host did not answer. The request may have arrived: the state of its runs is unknown."""

    not_sent = False  # True: the request surely did not arrive


class Unable(Unreachable):
    """The host answered that it could not carry out the request, and why."""


class NotContacted(Unreachable):
    """The host was not contacted: it failed a moment ago, or is in quarantine."""

    not_sent = True


class NotSent(Unreachable):
    """The connection closed before the request was sent: it may be repeated on another connection."""

    not_sent = True


class Untrusted(Unreachable):
    """The host showed another host key, or refused our key. An operator must check it before the next contact."""

    not_sent = True
