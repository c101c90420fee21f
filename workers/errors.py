"""What it is called when a host does not do as it is asked: away for now, or not to be trusted."""


class Unreachable(Exception):
    """The host did not answer; what it does meanwhile is unknown."""

    never_asked = False  # whether the request surely did not arrive


class Unable(Unreachable):
    """It answered that it could not do it, and why."""


class LeftAlone(Unreachable):
    """It was not even asked: it failed a moment ago, and is asked again later."""

    never_asked = True


class Distrusted(Unreachable):
    """It showed another key, or refused ours: a person must look before it is asked again."""

    never_asked = True
