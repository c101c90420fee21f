"""End to end: every process real, the story as an operator would see it."""
