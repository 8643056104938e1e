"""What a month's ledger needs, measured on a real MongoDB and Redis: `python -m tests.capacity`."""
