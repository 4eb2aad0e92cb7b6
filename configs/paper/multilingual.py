"""The paper's multilingual experiment: English chains alone are tuned on, then texts are summarized and translated.

Argument: alpaca or mistral, by the released trainer's settings (`configs/paper/alpaca_7b.py`).
Command: `python -m coi_jax.train --config configs/paper/multilingual.py:alpaca --workdir gs://bucket/runs/coi12`,
`python -m coi_jax.evaluate --workdir gs://bucket/runs/coi12`, and the same model as it is: `python -m coi_jax.evaluate
--config configs/paper/multilingual.py:alpaca --config.arm=base --workdir gs://bucket/runs/base`; then
`python -m coi_jax.tables --runs gs://bucket/runs --table 6 --out report`.
Paper, table 6: ROUGE-L of all / source / target, valid outputs of 300 (the release has 200) in the source's / target's
language. English to French, Alpaca: base 5.8 / 3.8 / 5.5, 126 / 221, coi12 8.9 / 12.7 / 8.0, 228 / 228; Mistral: base
8.0 / 10.7 / 7.5, 206 / 212, coi12 11.0 / 15.7 / 10.9, 295 / 295. Spanish to English, Alpaca: base 7.9 / 2.5 / 7.7, 80 /
240, coi12 10.4 / 1.9 / 7.1, 150 / 150; Mistral: base 11.2 / 0.1 / 11.2, 1 / 300, coi12 12.4 / 4.9 / 12.3, 290 / 290.

Cost of the training, by preflight for a v5e-64 at $1.20 a chip-hour: 192 steps, 2 to 3 minutes, $2 to $4.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import alpaca_7b, mistral_7b

MODELS = {"alpaca": alpaca_7b, "mistral": mistral_7b}


def get_config(model: str = "alpaca") -> ConfigDict:
    base.check_variant(model, *MODELS)
    config: ConfigDict = MODELS[model].get_config()
    config.evaluation.tests = ("wikilingua_en_fr", "wikilingua_es_en")
    return config
