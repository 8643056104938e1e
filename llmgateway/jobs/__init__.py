"""Periodic work beside the calls."""
