"""Where the points of a sweep run."""
