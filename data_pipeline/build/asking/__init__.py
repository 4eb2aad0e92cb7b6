"""Asks a language model: prompts, questions with the forms of their replies, and answerers."""
