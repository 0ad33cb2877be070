"""Hostile modules for compiler and admission: a typed refusal in bounded time, in a process that holds nothing."""
