"""Published formats: reading and writing the weights of model folders."""
