"""Screenshots of the portal with made-up people, for the documentation: `python -m tests.pictures`."""
