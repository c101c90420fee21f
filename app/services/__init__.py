"""Use cases, one subject per file. Each opens short transactions; none is open during a network call."""
