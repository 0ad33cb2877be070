"""Language models that are hostile, and guests that ask them for more than they were granted."""
