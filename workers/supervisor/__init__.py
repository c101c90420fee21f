"""Runs coding agents on a host: a package here, one file there (see `bundle`)."""
