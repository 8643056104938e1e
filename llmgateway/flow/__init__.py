"""The data plane: one file a step of a call; read gateway.py first."""
