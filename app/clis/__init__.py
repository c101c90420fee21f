"""The coding CLIs. To add one, copy a folder: `cli.toml` says how to run it, `parser.py` how to read its output."""
