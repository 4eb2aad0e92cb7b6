"""Every field of a build's config, with its unit; config files call `build` and assign what differs."""

from typing import Any

from ml_collections import ConfigDict


def build(llm: str, sources: tuple[dict[str, Any], ...]) -> ConfigDict:
    """Return a build that asks a model ("endpoint") or computes ("procedural")."""
    config = ConfigDict()
    config.llm = llm
    config.seed = 0
    config.seeds = ConfigDict(
        dict(
            sources=sources,
            languages=(),  # of input, output and instruction; () takes all
            instances=10,  # per task (paper, section 3)
            longest_words=300,  # of an input or output
            test_share=0.2,  # of the tasks
        )
    )
    config.pairs = ConfigDict(
        dict(
            tasks_per_categories=6,  # pairs of tasks tried for a pair of categories
            instances_per_tasks=2,  # instances tried for a pair of tasks
        )
    )
    config.joins = ConfigDict(
        dict(
            lengths=(3, 4, 5),  # besides pairs
            per_categories=6,  # chains tried for a sequence of categories, and
            most=2000,  # of each length and split
        )
    )
    config.endpoint = endpoint()
    config.opinion = ConfigDict(dict(enabled=True, endpoint=endpoint(), least_score=4))  # score: of 5
    config.selection = ConfigDict(
        dict(
            per_categories=3,  # chains of a sequence of categories (paper, section 3)
            singles=True,  # single instructions too, as chains of one step
        )
    )
    config.variants = ("fused", "irrelevant", "shuffled", "final")  # splits for ablations, as train_fused
    # "erased" and "kept" ask for worked answers too: the student is shown a general prompt, or the teacher's strategy.
    config.erasure = ConfigDict(
        dict(
            strategies="by_category",  # one for each chain, as data_pipeline/build/strategies.toml says; or all
            least_rouge_l=0.7,  # of an output against the reference, 0 to 1; None: the same text
        )
    )
    config.store = "data/replies.sqlite"  # of all builds: what is here is never paid again
    return config


def endpoint() -> ConfigDict:
    """Return an OpenAI-compatible endpoint, with prices of a small model."""
    return ConfigDict(
        dict(
            base_url=None,  # None: of the variable OPENAI_BASE_URL, else OpenAI's
            model=None,  # None: of the variable COI_LLM_MODEL
            key_variable="OPENAI_API_KEY",  # the environment variable that holds the key
            temperature=0.0,  # None: not sent
            token_limit_field="max_tokens",  # or max_completion_tokens, as newer models want it
            reply_tokens=None,  # of a reply, thinking included; None: as each prompt says
            reasoning_effort=None,  # "low", …; None: not sent
            extra_body=ConfigDict(),  # more fields of each request
            structured="json_schema",  # or json_object, text; an endpoint that knows no schemas is asked for the next
            prompt_price=0.15,  # US dollars per million tokens
            completion_price=0.60,
            batch_price_share=0.5,  # of these, by the Batch API
            concurrency=64,  # calls in flight per process
            processes=1,  # that share the two limits below
            requests_per_minute=None,  # None: no limit
            tokens_per_minute=None,
            timeout_seconds=120.0,  # for a whole reply
            attempts=10,  # for a call that is not answered
            patience_seconds=180.0,  # without any reply, then the endpoint is taken to be down
            declined_share=0.5,  # of a stage's calls that the endpoint may decline; more stop the build
        )
    )
