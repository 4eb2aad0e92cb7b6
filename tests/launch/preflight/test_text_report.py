from launch.preflight.text_report import span, table


def test_columns_are_aligned_to_the_right_but_the_first() -> None:
    assert table([("GiB", "train", "decode"), ("parameters", "1.50", ""), ("code", "0.01", "12.00")]).splitlines() == [
        "GiB         train  decode",
        "parameters   1.50",
        "code         0.01   12.00",
    ]


def test_bounds_that_look_alike_are_said_once() -> None:
    assert span((1.04, 1.01), ".1f") == "1.0"
    assert span((1000.4, 2000.6), ",.0f") == "1,000–2,001"
