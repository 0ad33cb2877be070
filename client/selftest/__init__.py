"""The attack suite that ships with the product: hostile guests and callers against a throw-away node of this host."""
