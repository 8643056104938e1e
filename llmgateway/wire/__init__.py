"""Byte formats, sans-IO: bytes in, values out, no loop and no socket."""
