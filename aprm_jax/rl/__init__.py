"""RL of a solver against any verifier: token rewards are the only contract."""
