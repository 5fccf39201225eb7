"""What there is to solve: problems, graders, oracles of steps, corruptors."""
