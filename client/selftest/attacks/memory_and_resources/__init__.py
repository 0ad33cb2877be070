"""Guests that want all the memory, tables, handles or randomness: limits and pools must hold."""
