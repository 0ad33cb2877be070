"""Guests that reach for files beyond their mounts, and that use mounts beyond their grants and quotas."""
