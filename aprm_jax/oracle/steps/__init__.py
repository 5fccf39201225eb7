"""Judges steps of plain text and LaTeX by the equations that they state."""
