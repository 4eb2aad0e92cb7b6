"""What people look at: the report, the order of curation, what became of each chain."""
