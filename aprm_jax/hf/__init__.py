"""Hugging Face checkpoints in and out: key tables, streaming, layouts of PRMs."""
