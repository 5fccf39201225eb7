"""Choosing an answer from many: aggregation of step scores, votes, best-of-n."""
