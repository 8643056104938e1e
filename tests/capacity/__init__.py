"""The plan of docs/operations/capacity.md, computed from what was measured."""
