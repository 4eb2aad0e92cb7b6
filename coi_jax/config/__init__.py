"""The config of a run: every field, its type and its bounds, and how config files are read."""
