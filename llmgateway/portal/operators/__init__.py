"""Operators' pages: the daily work without a shell."""
