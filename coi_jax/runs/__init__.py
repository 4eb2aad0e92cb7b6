"""The files of a run: its folder, checkpoints, train state and metrics."""
