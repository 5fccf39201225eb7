"""The decoder that every model is built on, its heads, and its files."""
