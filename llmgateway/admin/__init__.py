"""HTTP for operators: the JSON API under /admin."""
