"""Hostile modules for the compiler and for admission: a typed refusal in bounded time, in a process that holds nothing."""
