import pytest

from benchmarks import matrix_products
from benchmarks.matrix_products import Shape
from coi_jax.models import flops
from tests.helpers import tiny_models

SHAPES: dict[Shape, int] = {(64, 16, 32): 2, (8, 16, 100): 1}


@pytest.mark.parametrize("tied", [True, False])
def test_the_shapes_hold_all_operations_of_the_matrices(tied: bool) -> None:
    network = tiny_models.network(model__tied_embedding=tied, model__kv_heads=2)
    costs = flops.costs(network)
    found = matrix_products.shapes(network, positions=1000, targets=10)
    work = {rows: sum(6 * a * b * count for (of, a, b), count in found.items() if of == rows) for rows in (1000, 10)}
    norms = 6 * 16 * (2 * 2 + 1)  # which `flops` counts among the matrices
    assert work == {1000: costs.token - norms, 10: costs.target}


def test_the_rate_is_that_of_all_products_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {(64, 16, 32): 0.5, (8, 16, 100): 1.0}
    monkeypatch.setattr(matrix_products, "_seconds", lambda shape, dtype: seconds[shape])
    work = 6 * (2 * 64 * 16 * 32 + 8 * 16 * 100)
    assert matrix_products.rate(SHAPES, "float32") == pytest.approx(work / 2)


def test_the_rate_of_a_machine_is_measured() -> None:
    assert 1e6 < matrix_products.rate(SHAPES, "float32") < 1e15
