"""The client towards models, over real sockets, against servers that behave and servers that do not."""
