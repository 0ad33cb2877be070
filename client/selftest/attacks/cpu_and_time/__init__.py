"""Guests that want the processor for ever: fuel, slices and deadlines must end them, and nobody beside them may wait."""
