"""Follows the forges: deliveries, issues, pull requests, commands; and the reconcile round that needs no webhook."""
