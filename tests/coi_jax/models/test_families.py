"""Every family against transformers, at random weights: logits, greedy answers, gradients.

Each comparison leaves its largest difference in the report of the run (`record_property`), from which
`tests/helpers/parity_table.py` makes the table of docs/results/parity.md.
"""

import copy
from collections.abc import Callable

import jax
import numpy as np
import pytest
import torch
from transformers import GenerationMixin

from coi_jax.models import Network, Params
from coi_jax.weights.hf_names import to_params
from tests.helpers import tiny_networks
from tests.helpers.both_networks import Both, make_both
from tests.helpers.reference_layers import gradients_of, numpy, torch_of
from tests.helpers.reference_models import FAMILIES, VOCABULARY

LENGTH = 20  # four windows
TOLERANCE = 1e-4

Record = Callable[[str, object], None]


@pytest.fixture(scope="module", params=FAMILIES)
def triple(request: pytest.FixtureRequest) -> Both:
    """The reference, the network, and the parameters of both."""
    return make_both(request.param)


def batch_of(network: Network) -> dict[str, jax.Array]:
    """Two rows, one example each, of all token ids."""
    tokens = np.random.default_rng(3).integers(2, VOCABULARY, (4, LENGTH + 1)).astype(np.int32)
    if network.config.kind == "t5":
        return tiny_networks.pack_pairs([[(tokens[0], tokens[1, :-1])], [(tokens[2], tokens[3, :-1])]], LENGTH + 1)
    return tiny_networks.pack([[tokens[0]], [tokens[1]]], LENGTH)


def their_logits(theirs: torch.nn.Module, batch: dict[str, jax.Array]) -> torch.Tensor:
    if "encoder_tokens" in batch:
        inputs = torch_of(batch["encoder_tokens"])
        logits: torch.Tensor = theirs(input_ids=inputs, decoder_input_ids=torch_of(batch["tokens"])).logits
    else:
        logits = theirs(torch_of(batch["tokens"])).logits
    return logits


def test_logits_and_gradients(triple: Both, record_property: Record) -> None:
    """One compilation gives both. The loss is the sum over all positions that have a target."""
    theirs, network, params = triple
    batch = batch_of(network)

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        return network.loss(params, batch).loss, network.logits(params, batch)

    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = their_logits(theirs, batch)
    kept = np.asarray(batch["weights"]) == 1
    difference = np.abs(np.asarray(logits) - numpy(expected))[kept].max()
    record_property("logits", float(difference))
    assert difference < TOLERANCE
    record_property("gradients", compare_gradients(triple, batch, expected, gradients))


def compare_gradients(triple: Both, batch: dict[str, jax.Array], logits: torch.Tensor, ours: Params) -> float:
    """The largest difference, each in units of the largest gradient of its array."""
    theirs, network, _ = triple
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch_of(batch["targets"]).flatten(), reduction="none"
    )
    theirs.zero_grad()
    (losses * torch_of(batch["weights"]).flatten()).sum().backward()
    weights = {name: numpy(gradient) for name, gradient in gradients_of(theirs).items()}
    expected = to_params(network.config, network.abstract(), weights)
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max() / np.abs(b).max()), ours, expected)
    worst: float = max(jax.tree.leaves(differences))
    assert worst < TOLERANCE, differences
    return worst


def test_greedy_answers(triple: Both, record_property: Record) -> None:
    """Prompts of unlike lengths in one batch; the reference gets each alone."""
    theirs, network, params = triple
    prompts = [tiny_networks.tokens(seed, length) for seed, length in ((3, 11), (4, 2), (5, 7))]
    ours = tiny_networks.greedy(network, params, prompts, steps=LENGTH)
    assert isinstance(theirs, GenerationMixin)
    for prompt, answer in zip(prompts, ours, strict=True):
        given, seen = torch_of(prompt)[None], torch.ones(1, len(prompt))
        expected = theirs.generate(given, max_new_tokens=LENGTH, do_sample=False, attention_mask=seen, use_cache=False)
        start = 1 if network.config.kind == "t5" else len(prompt)
        assert answer.tolist() == expected[0, start:].tolist()
    record_property("greedy tokens", len(prompts) * LENGTH)


def test_longrope_rotates_each_sequence_by_its_own_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long and short sequences in one row, and in one batch that is generated; the reference gets each alone."""
    config = copy.deepcopy(FAMILIES["Phi-4-mini"])
    config.original_max_position_embeddings = 8
    monkeypatch.setitem(FAMILIES, "long", config)
    theirs, network, params = make_both("long")
    short, long = tiny_networks.tokens(1, 8), tiny_networks.tokens(2, 13)
    batch = tiny_networks.pack([[short, long]], LENGTH)
    prompts = [tiny_networks.tokens(seed, length) for seed, length in ((3, 11), (4, 3))]
    logits = numpy(torch_of(network.logits(params, batch)))[0]
    answers = tiny_networks.greedy(network, params, prompts, steps=5)
    for found, alone in ((logits[:7], short[:-1]), (logits[7:19], long[:-1])):
        np.testing.assert_allclose(found, numpy(theirs(torch_of(alone)[None]).logits[0]), atol=TOLERANCE)
    assert isinstance(theirs, GenerationMixin)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = theirs.generate(torch_of(prompt)[None], max_new_tokens=5, do_sample=False, use_cache=False)
        assert answer.tolist() == expected[0, len(prompt) :].tolist()


def test_queries_grow_with_the_position_in_their_own_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sequences in one row; the reference gets each alone. Without the growth the logits are others."""
    theirs, network, params = make_both("Ministral 3")
    one, other = tiny_networks.tokens(1, 10), tiny_networks.tokens(2, 12)
    batch = tiny_networks.pack([[one, other]], LENGTH)
    logits = numpy(torch_of(network.logits(params, batch)))[0]
    expected = [numpy(theirs(torch_of(alone[:-1])[None]).logits[0]) for alone in (one, other)]
    np.testing.assert_allclose(logits[:9], expected[0], atol=TOLERANCE)
    np.testing.assert_allclose(logits[9:20], expected[1], atol=TOLERANCE)
    monkeypatch.setitem(theirs.config.rope_parameters, "llama_4_scaling_beta", 0.0)
    still = numpy(theirs(torch_of(other[:-1])[None]).logits[0])
    assert np.abs(still - expected[1])[:8].max() < TOLERANCE < np.abs(still - expected[1])[8:].max()
