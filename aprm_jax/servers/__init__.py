"""Servers of others, asked over HTTP until they answer or not; answers are kept."""
