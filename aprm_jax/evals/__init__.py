"""Measuring verifiers and solvers, with intervals."""
