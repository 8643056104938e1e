"""Logs and metrics: sinks of call records."""
