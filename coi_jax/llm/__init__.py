"""Asking a language model behind any OpenAI-compatible endpoint, so that no reply is ever paid for twice.

A `Call` is what is asked, a `Reply` what came back. `Client` looks into the `store` of replies first; then it asks the
`Budget`, keeps the `RateLimits`, and calls the `Endpoint`. `ask` wants replies of a closed schema.
"""

from coi_jax.llm.calls import Call, Message, Reply
from coi_jax.llm.client import Client
from coi_jax.llm.structured import Answered, Outcome, Rejected, Unanswered, ask

__all__ = ["Answered", "Call", "Client", "Message", "Outcome", "Rejected", "Reply", "Unanswered", "ask"]
