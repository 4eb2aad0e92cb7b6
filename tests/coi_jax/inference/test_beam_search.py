import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GenerationMixin, PreTrainedModel

from coi_jax.inference.beam_search import BeamStrategy, length_divisor
from coi_jax.inference.generator import Generator
from coi_jax.inference.rows import Prompt
from coi_jax.models import Network, Params
from coi_jax.models.kv_cache import Cache
from tests.helpers.both_networks import Both, make_both
from tests.helpers.continuations import EOS, Oracle, beam
from tests.helpers.reference_models import VOCABULARY
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


def test_divisor_is_one_at_one_token_and_grows() -> None:
    assert length_divisor(jnp.asarray(1), 0.6) == 1
    assert 1 < length_divisor(jnp.asarray(10), 0.6) < 10
    assert length_divisor(jnp.asarray(10), 0.0) == 1


# A language of five tokens in which the next token follows from the last one.
END, A, B, C, D = range(5)
SURE = 1 - 4e-9
FIRST = jnp.log(jnp.array([[3e-4, 0.999, 1e-4, 4e-4, 2e-4]]))
NEXT = jnp.log(jnp.full((5, 5), 1e-9).at[jnp.arange(5), jnp.array([END, B, END, END, END])].set(SURE))


class Bigrams(Network):
    """A network whose logits are a table, so that its cache never changes."""

    def decode_step(self, params: Params, cache: Cache, tokens: jax.Array) -> tuple[jax.Array, Cache]:
        return NEXT[tokens], cache


@pytest.mark.parametrize("beams", [1, 4])
def test_a_row_goes_on_while_a_live_beam_can_win(beams: int) -> None:
    strategy = BeamStrategy(Bigrams(CONFIGS["decoder"], len(NEXT)), END, 6, beams)
    cache = strategy.network.empty_cache(1, prompt_length=1, max_new_tokens=1)
    state = strategy.init_state(FIRST, cache, jax.random.split(jax.random.key(0), 1))
    while not bool(state.ended[0]) and int(state.step[0]) < 6:
        state = strategy.advance({}, state)
    assert strategy.answers(state)[0].tolist() == [A, B, END, END, END, END]


NEW_TOKENS = 12
ENDS = [1, *range(5, VOCABULARY, 6)]  # many, so that answers differ in length


@pytest.fixture(scope="module", params=["Llama 2", "T5 1.1, FLAN-T5"])
def pair(request: pytest.FixtureRequest) -> Both:
    """A model of transformers with random weights, and ours with the same."""
    return make_both(request.param)


def expected(theirs: PreTrainedModel, prompts: list[Prompt], settings: dict[str, Any]) -> list[list[int]]:
    """The answers of transformers, each up to its end."""
    given = torch.from_numpy(np.stack([prompt.tokens for prompt in prompts]).astype(np.int64))
    assert isinstance(theirs, GenerationMixin)
    found = theirs.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=ENDS,
        pad_token_id=0,
        use_cache=False,  # theirs takes a T5 with as many layers on both sides only
        **settings,
    )
    start = 1 if theirs.config.is_encoder_decoder else given.shape[1]
    return [list(itertools.takewhile(lambda token: token not in ENDS, row)) for row in found[:, start:].tolist()]


@pytest.mark.parametrize(
    ("beams", "penalty", "early_stopping"), [(3, 1.0, False), (3, 1.0, True), (2, 2.0, False), (4, 0.0, True)]
)
def test_equals_transformers(pair: Both, beams: int, penalty: float, early_stopping: bool) -> None:
    theirs, network, params = pair
    settings = {"num_beams": beams, "length_penalty": penalty, "early_stopping": early_stopping}
    prompts = [Prompt(str(seed), np.asarray(tokens(seed, 6), np.int32)) for seed in range(16)]
    strategy = BeamStrategy(network, ENDS[0], NEW_TOKENS, beams, tuple(ENDS[1:]), penalty, early_stopping)
    ours = {answer.index: answer.tokens for answer in Generator(params, strategy, 16, 0).run(prompts)}
    theirs_answers = expected(theirs, prompts, settings)
    assert [ours[n] for n in range(16)] == theirs_answers
    assert len(set(map(len, theirs_answers))) > 2
