"""Pure dialects: how a call is written for a provider and how its answer is read."""
