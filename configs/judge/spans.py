"""A language model that marks the steps of answers without labels (paper, table 3).

Command: `python -m coi_jax.spans --workdir runs/base --tasks coi2_test --budget 1`. The endpoint is that of the
variables OPENAI_BASE_URL, OPENAI_API_KEY and COI_LLM_MODEL.
"""

from ml_collections import ConfigDict

from configs.build import base


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            endpoint=base.endpoint(),
            asks_about_labelled=False,  # also about answers that have all labels, which mark the steps themselves
            examples=None,  # None: all answers
            bootstrap=1000,
            seed=0,
            store="data/replies.sqlite",  # the one of builds
        )
    )
