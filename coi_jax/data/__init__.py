"""From a task to a batch: arms, test sets, prompts, token caches, packing and the loader."""
