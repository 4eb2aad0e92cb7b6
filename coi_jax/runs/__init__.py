"""What a run keeps: its folder, checkpoints, train state and metrics."""
