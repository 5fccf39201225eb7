"""Sampling: prefill, decode loop, sampling methods."""
