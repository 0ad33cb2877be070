"""Forged, replayed and damaged generations and stores: the node verifies every byte itself."""
