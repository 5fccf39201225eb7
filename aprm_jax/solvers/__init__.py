"""Solvers: who writes solutions, behind one protocol."""
