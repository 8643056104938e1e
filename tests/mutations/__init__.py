"""Mutants: each check of the modules that guard something is taken out in turn; some test has to notice."""
