from data_pipeline.build.review.review_order import review_order, weight
from tests.helpers.drafts import draft, opinion

DRAFTS = [draft(f"{score} {n}", opinion=opinion(score)) for score in (1, 2, 3, 4, 5) for n in range(200)]


def test_doubtful_chains_come_sooner_and_sure_ones_come_too() -> None:
    first = [one.opinion.score for one in review_order(DRAFTS, 4, 0)[:300] if one.opinion]
    assert first.count(4) > 2 * first.count(5) > 0
    assert first.count(3) > 2 * first.count(2) > 0


def test_all_come_once_in_an_order_that_follows_from_the_seed() -> None:
    order = [one.id for one in review_order(DRAFTS, 4, 0)]
    assert sorted(order) == sorted(one.id for one in DRAFTS)
    assert order == [one.id for one in review_order(DRAFTS[::-1], 4, 0)]
    assert order != [one.id for one in review_order(DRAFTS, 4, 1)]


def test_an_opinion_that_contradicts_itself_is_as_doubtful_as_none() -> None:
    assert weight(draft("a"), 4) == weight(draft("a", opinion=opinion(5, valid=False)), 4) == 1
    assert weight(draft("a", opinion=opinion(4)), 4) == weight(draft("a", opinion=opinion(3)), 4) == 1
    assert weight(draft("a", opinion=opinion(5)), 4) == 1 / 4
    assert weight(draft("a", opinion=opinion(1)), 4) == 1 / 16
