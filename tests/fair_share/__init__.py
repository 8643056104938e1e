"""What fair share does to those who wait: users and a model server, simulated in virtual time."""
