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
