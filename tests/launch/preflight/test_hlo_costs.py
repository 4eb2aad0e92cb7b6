import pytest

from launch.preflight import hlo, hlo_costs
from launch.preflight.hlo import Computation, Instruction, Shape
from launch.preflight.hlo_costs import Collective
from tests.helpers.hlo_modules import TEXT

COSTS = hlo_costs.count(hlo.parse(TEXT))


def test_operations_are_those_of_all_turns() -> None:
    assert COSTS.flops == 5 * 2 * 8 * 16 * 32


def test_a_collective_that_is_spread_over_fusions_counts_once() -> None:
    gathers = [item for item in COSTS.collectives if item.kind == "all-gather"]
    assert gathers == [Collective("all-gather", (0, 2, 4, 6), 1, 8 * 8 * 2)]


def test_collectives_in_loops_count_every_turn() -> None:
    by_kind = {item.kind: item for item in COSTS.collectives}
    assert by_kind["collective-permute"] == Collective("collective-permute", (0, 2), 5, 5 * 8 * 32 * 4)
    assert by_kind["all-reduce"] == Collective("all-reduce", (0, 2, 4, 6), 1, 5 * 8 * 32 * 4)
    assert by_kind["all-reduce"].wire_bytes == 2 * 3 / 4 * 5 * 8 * 32 * 4


def test_memory_traffic_of_slices_and_updates_is_that_of_the_part() -> None:
    weights, kept, rows = 16 * 32 * 4, 8 * 32 * 4, 8 * 16 * 4
    numbers = 2 * 4  # the number of the layer, which two fusions read
    turn = 2 * weights + (rows + weights + kept) + 2 * kept + numbers
    once = 2 * (2 * 8 * 2) + 2 * 5 * kept + 2 * 4  # gathered from the parts, the sum, the copied number
    assert COSTS.memory_bytes == pytest.approx(5 * turn + once, abs=16)


@pytest.mark.parametrize(
    ("left", "right", "out", "attributes", "multiplications"),
    [
        ((8, 16), (16, 32), (8, 32), "dim_labels=bf_io->bf", 8 * 16 * 32),
        ((16, 8), (16, 32), (8, 32), "dim_labels=fb_io->bf", 8 * 16 * 32),
        # heads that lead along, spelt as a dilated window: scores of 4 heads, 6 × 6, width 8
        (
            (4, 1, 6, 8),
            (4, 6, 8, 1),
            (4, 1, 6, 6),
            "window={size=4x1 stride=3x1 lhs_dilate=4x1}, dim_labels=01bf_0oi1->01bf",
            4 * 6 * 6 * 8,
        ),
        # a kernel with heads as a padded window: 10 × 8 · 8 × (4 heads of 3)
        (
            (10, 8, 1),
            (4, 3, 8),
            (10, 4, 3),
            "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=bf0_0oi->b0f",
            10 * 8 * 4 * 3,
        ),
    ],
)
def test_a_matrix_product_costs_the_same_in_every_spelling(
    left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], attributes: str, multiplications: int
) -> None:
    line = Instruction("c", (Shape("bf16", out, 0),), "convolution", "%l, %r", attributes, True)
    given = {
        name: Instruction(name, (Shape("bf16", shape, 0),), "parameter", "0", "", False)
        for name, shape in (("l", left), ("r", right))
    }
    module = hlo.Module({"main": Computation("main", given | {"c": line})}, "main")
    assert hlo_costs.count(module).flops == 2 * multiplications


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        ("replica_groups={{0,1},{2,3}}", (0, 1)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_0','axis_2'}", (0, 1, 4, 5)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_1'}", (0, 2, 4, 6)),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_0','axis_1'}",
            (0, 2, 4, 6, 1, 3, 5, 7),
        ),
        ("source_target_pairs={{3,1},{1,3}}", (3, 1)),
    ],
)
def test_groups_are_read_in_every_spelling(groups: str, members: tuple[int, ...]) -> None:
    line = Instruction("c", (Shape("f32", (8,), 0),), "all-reduce", "%p", f", channel_id=1, {groups}, x=1", True)
    assert hlo_costs.group(line) == members


def test_groups_in_an_unknown_spelling_are_an_error() -> None:
    line = Instruction("c", (Shape("f32", (8,), 0),), "all-reduce", "%p", ", replica_groups=new{0,1}", True)
    with pytest.raises(ValueError, match="not known: , replica_groups=new"):
        hlo_costs.group(line)


def test_splash_attention_counts_the_pairs_that_its_mask_leaves_and_other_kernels_are_told() -> None:
    heads = Shape("bf16", (2, 4, 256, 32), 0)
    query = Instruction("q", (heads,), "parameter", "0", "", False)

    def count(name: str) -> hlo_costs.Costs:
        kernel = Instruction(
            name, (heads,), "custom-call", "%q, %q, %q", ', custom_call_target="tpu_custom_call"', True
        )
        return hlo_costs.count(hlo.Module({"main": Computation("main", {"q": query, name: kernel})}, "main"))

    pairs = 2 * 4 * 256 * 256 / 2
    assert count("splash_mha_fwd.1").flops == pairs * 4 * 32
    assert count("splash_mha_dkv.1").flops == pairs * 8 * 32
    assert count("splash_mha_fwd.1").kernels == 0
    assert (count("mine").flops, count("mine").kernels) == (0, 1)


def test_sums_between_slices_are_what_is_sent() -> None:
    shapes = (Shape("f32", (2, 128), 0), Shape("u32", (), 0))
    for attributes, found in ((', frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}', 1), ("", 0)):
        send = Instruction("s", shapes, "send", "", attributes, True)
        costs = hlo_costs.count(hlo.Module({"main": Computation("main", {"s": send})}, "main"))
        assert costs.collectives == (Collective(hlo_costs.BETWEEN_SLICES, (), 1, 2 * 128 * 4),) * found
