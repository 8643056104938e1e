"""Frozen values and the ports: what the gateway talks about, without any I/O."""
