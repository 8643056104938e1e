"""Implementations of the ports that remember: SQLite, MongoDB, Redis, memory, the journal."""
