"""HTTP for programs and machines: requests in, answers and errors out."""
