"""Everything before the token cache: sources, composition, audits, SeqIO tasks. TensorFlow lives here only."""
