"""The CLIs we know: a folder each, with `cli.toml` (how to run it) and `parser.py` (how to read it)."""
