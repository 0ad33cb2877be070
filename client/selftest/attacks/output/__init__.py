"""Guests that attack whoever reads what they say: floods, invalid text, terminal escapes, log injection."""
