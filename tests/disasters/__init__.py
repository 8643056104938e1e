"""Two nodes with a network each, their stores and a balancer: each process is killed while people work."""
