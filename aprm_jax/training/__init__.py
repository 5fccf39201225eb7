"""What every training job shares: mesh, checkpoints, metrics, timing, loop, workdir."""
