"""The only HTTP client towards models."""
