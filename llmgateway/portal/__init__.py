"""HTTP for people: the pages under /portal, their sessions and sign-in."""
