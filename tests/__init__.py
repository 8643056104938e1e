"""The test suite: it mirrors the package, and `lab` holds the counterparts."""
