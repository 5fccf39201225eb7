"""Step sequences and the domains of problems that they come from."""
