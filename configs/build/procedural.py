"""Chains of procedural operations through the same stages, with no language model: verdicts and outputs are computed.

Command: `python -m data_pipeline.build --config configs/build/procedural.py --out data/built`
With `--config.llm=endpoint` a model answers instead, and the build tells its precision and recall at every stage.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.llm = "procedural"  # or "endpoint": a model, whose answers are held against the truth
    config.seed = 0
    config.seeds = ConfigDict(
        dict(
            sources=(dict(kind="procedural", path="lists,numbers", split=""),),  # families or names of operations
            languages=(),  # all
            instances=10,  # of a task
            longest_words=300,  # of an input or output
            test_share=0.2,  # of the tasks
        )
    )
    config.pairs = ConfigDict(
        dict(
            tasks_per_categories=6,  # pairs of tasks tried for a pair of categories
            instances_per_tasks=4,  # instances tried for a pair of tasks
        )
    )
    config.joins = ConfigDict(
        dict(
            lengths=(3, 4, 5),  # besides pairs
            per_categories=4,  # chains tried for a sequence of categories, and
            most=2000,  # of each length and split
        )
    )
    config.endpoint = endpoint()
    config.opinion = ConfigDict(dict(enabled=True, endpoint=endpoint(), least_score=4))
    config.selection = ConfigDict(
        dict(
            per_categories=12,  # chains of a sequence of categories
            singles=True,  # single instructions too, as chains of one step
        )
    )
    config.variants = ("irrelevant", "shuffled", "final")  # splits for ablations, as train_final
    config.store = "data/replies.sqlite"  # of all builds: what is here is never paid again
    return config


def endpoint() -> ConfigDict:
    return ConfigDict(
        dict(
            base_url="",  # "": of the variable OPENAI_BASE_URL, else OpenAI's
            model="",  # "": of the variable COI_LLM_MODEL
            key_variable="OPENAI_API_KEY",  # the variable that holds the key
            temperature=0.0,
            structured="json_schema",  # or "json_object", "text", where an endpoint knows no schemas
            prompt_price=0.15,  # US dollars for a million tokens
            completion_price=0.60,
            batch_price_share=0.5,  # of these, by the Batch API
            concurrency=64,  # calls in flight, of one process
            processes=1,  # that share the two limits below
            requests_per_minute=0,  # 0: no limit
            tokens_per_minute=0,
            timeout_seconds=120.0,
            attempts=10,  # for a call that is not answered
            patience_seconds=180.0,  # without any reply, then the endpoint is taken to be down
        )
    )
