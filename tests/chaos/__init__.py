"""Kills processes, cuts connections and repeats deliveries: the work continues, and the state is right without help."""
