"""From a checkpoint to answers: loading a model, decoding."""
