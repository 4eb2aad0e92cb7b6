import pytest

from coi_jax.common import progress


def test_track_yields_every_item() -> None:
    assert list(progress.track(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert list(progress.track(iter("ab"), "counting")) == ["a", "b"]


def test_lines_with_an_eta_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.Bar("training", total=10, done=4) as bar:
        bar.advance(1, note="loss 2.5")
    assert capsys.readouterr().err.startswith("training: 5/10, ETA ")


def test_quiet_between_lines(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress.track(range(1000), "counting"))
    assert capsys.readouterr().err == ""


def test_what_waited_for_a_compilation_is_not_in_the_estimate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 60.0, 62.0, 64.0, 94.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.Bar("training", total=14, done=4) as bar:
        bar.advance(is_typical=False)
        bar.advance()
        bar.advance()
        bar.advance(3, is_typical=False)
        assert bar.seconds_left == 8.0
    assert capsys.readouterr().err.splitlines() == [
        "training: 5/14, ETA unknown",
        "training: 6/14, ETA 16 s",
        "training: 7/14, ETA 14 s",
        "training: 10/14, ETA 8 s",
    ]
