"""Guests that want the processor for ever: fuel, slices and deadlines end them, and nobody beside them waits."""
