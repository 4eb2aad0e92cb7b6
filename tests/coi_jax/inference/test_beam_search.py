import jax
import jax.numpy as jnp
import pytest

from coi_jax.inference.beam_search import BeamStrategy, length_penalty
from coi_jax.inference.generator import Generator, Prompt
from tests.helpers.continuations import EOS, Oracle, beam
from tests.helpers.tiny_networks import CONFIGS, network_and_params, tokens

LIMIT = 5
PROMPTS = [Prompt(str(n), tokens(n, length)) for n, length in enumerate((5, 9, 3, 12))]


@pytest.mark.parametrize(("kind", "beams"), [("decoder", 2), ("t5", 3)])
def test_finds_what_a_search_text_by_text_finds(kind: str, beams: int) -> None:
    network, params = network_and_params(CONFIGS[kind])
    params = jax.tree.map(lambda leaf: 2 * leaf, params)
    oracle = Oracle(network, params)
    found = Generator(params, BeamStrategy(network, EOS, LIMIT, beams), 4, 0).run(PROMPTS)
    answers = {answer.index: answer.tokens for answer in found}
    assert answers == {n: beam(oracle, prompt.tokens, LIMIT, beams) for n, prompt in enumerate(PROMPTS)}


def test_penalty_is_one_at_one_token_and_grows() -> None:
    assert length_penalty(jnp.asarray(1)) == 1
    assert 1 < length_penalty(jnp.asarray(10)) < 10
