"""A language model as judge of two runs' answers (paper, section 4: pairwise preference).

Command: `python -m coi_jax.judge --a runs/coi12 --b runs/coi1 --task coi2_test --budget 1`. The endpoint is that of the
variables OPENAI_BASE_URL, OPENAI_API_KEY and COI_LLM_MODEL.
"""

from ml_collections import ConfigDict

from configs.build import base


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            endpoint=base.endpoint(),
            shows_reference=False,  # the paper's judge compares without one
            examples=None,  # None: all that both runs have answered
            bootstrap=1000,
            seed=0,
            store="data/replies.sqlite",  # the one of builds
        )
    )
