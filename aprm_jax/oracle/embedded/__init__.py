"""Judges steps of the embedded arithmetic problems, exactly."""
