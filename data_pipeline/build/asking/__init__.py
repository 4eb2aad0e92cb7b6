"""Questions to a language model: prompts, forms of replies, who answers."""
