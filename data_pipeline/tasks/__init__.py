"""SeqIO tasks and mixtures, their vocabularies, and the TFDS builder. TensorFlow is imported here only."""
