"""The product end to end: real processes and sockets, the same tests on a laptop's gateway and on a fleet."""
