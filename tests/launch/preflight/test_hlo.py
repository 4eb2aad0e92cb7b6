from launch.preflight import hlo
from tests.helpers.hlo_modules import TEXT

MODULE = hlo.parse(TEXT)


def test_loops_have_their_turns_and_what_they_run_runs_as_often() -> None:
    assert [(line.name, turns) for line, turns in MODULE.loops(MODULE.entry)] == [("while.8", 5)]
    assert [(line.name, turns) for line, turns in MODULE.loops("body")] == [("while.60", None)]
    runs = MODULE.runs()
    assert {name: runs[name] for name in (MODULE.entry, "body", "sliced", "inner_body", "gathered")} == {
        MODULE.entry: 1,
        "body": 5,
        "sliced": 5,
        "inner_body": 5,
        "gathered": 2,
    }
    assert MODULE.runs("body")["updated"] == 1


def test_a_line_has_its_shapes_operands_and_place_in_memory() -> None:
    permute = MODULE.computations["inner_body"].instructions["collective-permute-start.4"]
    assert permute.opcode == "collective-permute-start"
    assert permute.operands == ["get-tuple-element.41"]
    assert [(shape.dtype, shape.dimensions, shape.space) for shape in permute.shapes] == [
        ("f32", (8, 32), 1),
        ("f32", (8, 32), 1),
        ("u32", (), 2),
    ]
    assert permute.number("channel_id") == 9
    assert permute.shapes[0].bytes == 8 * 32 * 4


def test_an_attribute_over_several_lines_hides_no_instruction() -> None:
    assert MODULE.computations[MODULE.entry].root.name == "all-reduce.8"
    assert len(MODULE.computations[MODULE.entry].instructions) == 13


def test_turns_that_the_compiler_tells_are_believed() -> None:
    told = TEXT.replace("body=%inner_body", 'body=%inner_body, backend_config={"known_trip_count":{"n":"7"}}')
    assert hlo.parse(told).runs()["inner_body"] == 35


def test_branches_of_a_conditional_share_its_runs() -> None:
    line = hlo.Instruction("c", (), "conditional", "%p", ", branch_computations={%sliced, %updated}", False)
    assert line.called == ["sliced", "updated"]
    assert MODULE.often("body", line) == 0.5
