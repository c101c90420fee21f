"""What can happen, one verb a file. Each opens short transactions of its own; none is open across a network call."""
