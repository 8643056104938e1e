"""What scopes may use and whose turn it is on a full model: counted in one process, or on Redis for all."""
