"""Guests that look for a way out through the http grant, and services that answer with an attack."""
