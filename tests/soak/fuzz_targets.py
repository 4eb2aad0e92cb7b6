"""All readers of input that somebody else wrote, by name.

To add one, add a target to a module of `targets`, and its share to `targets.names`.
"""

from tests.helpers.fuzzing import Target
from tests.soak.targets import (
    chain_targets,
    config_targets,
    llm_targets,
    record_targets,
    serving_targets,
    weight_targets,
)
from tests.soak.targets.names import SHARES

MODULES = (chain_targets, config_targets, llm_targets, record_targets, serving_targets, weight_targets)


def targets() -> dict[str, Target]:
    """Return the targets by name."""
    found = {name: target for module in MODULES for name, target in module.TARGETS.items()}
    assert found.keys() == SHARES.keys(), found.keys() ^ SHARES.keys()
    return found
