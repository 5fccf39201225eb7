"""Learning a verifier: the PRM's objective, scoring, Monte-Carlo labels."""
