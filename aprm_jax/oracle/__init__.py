"""Oracles: exact verdicts on steps and answers; nothing here imports JAX."""
