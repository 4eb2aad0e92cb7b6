from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from coi_jax.chains.chain import Chain
from coi_jax.llm import Answered
from data_pipeline import variants
from data_pipeline.build.asking.questions import Instruction
from data_pipeline.build.engine.stage_runner import OUT, REJECTED
from data_pipeline.build.stages import fusing
from tests.helpers.drafts import draft

lengths = st.integers(2, 5)


def chains(length: int, number: int = 6) -> Sequence[Chain]:
    return [draft(str(n), length).chain("s") for n in range(number)]


@given(lengths, st.integers(0, 99))
def test_shuffled_steps_are_the_same_steps_in_another_order(length: int, seed: int) -> None:
    (chain,) = chains(length, 1)
    made = variants.shuffled(chain, seed)
    assert made.steps != chain.steps
    assert sorted(made.steps, key=str) == sorted(chain.steps, key=str)
    assert made.instruction == " and then ".join(step.instruction for step in made.steps)
    assert made.input == chain.input


@given(lengths, st.integers(0, 99))
def test_irrelevant_outputs_come_from_one_other_chain_with_other_tasks(length: int, seed: int) -> None:
    group = chains(length)
    made = variants.irrelevant(group[0], group, seed)
    assert made
    other = next(chain for chain in group if chain.steps[0].output == made.steps[0].output)
    assert other is not group[0]
    assert [step.output for step in made.steps[:-1]] == [step.output for step in other.steps[:-1]]
    assert made.steps[-1] == group[0].steps[-1]
    assert [step.instruction for step in made.steps] == [step.instruction for step in group[0].steps]


def test_there_is_no_irrelevant_output_without_another_chain() -> None:
    (chain,) = chains(3, 1)
    assert variants.irrelevant(chain, [chain, chain], 0) is None


@given(lengths)
def test_the_final_answer_alone_stands_under_the_same_instruction(length: int) -> None:
    (chain,) = chains(length, 1)
    made = variants.final(chain)
    assert (made.length, made.instruction) == (1, chain.instruction)
    assert made.steps[0].output == chain.steps[-1].output


@given(lengths)
def test_a_fused_instruction_hides_the_steps_of_the_prompt_and_the_target_keeps_them(length: int) -> None:
    (chain,) = chains(length, 1)
    made = variants.fused(chain, "Do it all.")
    assert made.instruction == "Do it all."
    assert made.steps == chain.steps


def test_a_fused_instruction_that_tells_its_steps_is_rejected() -> None:
    row = draft("a").row()
    ((tag, found),) = fusing.take(row, Answered(Instruction(instruction="First, sum up. Then go."), ()), None)
    assert (tag, found["reason"]) == (REJECTED, fusing.NAMES_STEPS)
    ((tag, found),) = fusing.take(row, Answered(Instruction(instruction="Give the gist as a title."), ()), None)
    assert (tag, found["id"]) == (OUT, draft("a").id)


def test_ids_of_variants_are_their_own() -> None:
    group = chains(3)
    made = [
        variants.shuffled(group[0], 0),
        variants.irrelevant(group[0], group, 0),
        variants.final(group[0]),
        variants.fused(group[0], "x"),
    ]
    assert len({chain.id for chain in made if chain} | {group[0].id}) == 5
