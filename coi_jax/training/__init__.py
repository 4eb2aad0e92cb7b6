"""From a batch to a step: the loop, the train step, the optimizers."""
