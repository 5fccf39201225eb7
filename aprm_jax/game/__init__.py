"""The adversarial game: rewards, utilities, OGDA, PPO, the joint update, theory."""
