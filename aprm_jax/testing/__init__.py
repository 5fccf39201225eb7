"""What tests need, of this package and of its users: models that cost nothing."""
