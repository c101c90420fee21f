"""The JSON API for agents and operators."""
