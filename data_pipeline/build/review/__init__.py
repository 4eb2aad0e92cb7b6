"""The report of a build, the order of curation, and the outcome of each chain."""
