"""Callers without, with foreign or with expired identities, and callers that flood."""
