"""K draws per case."""
