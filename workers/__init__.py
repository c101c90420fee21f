"""Background workers: only this package reaches other machines."""
