"""What Standfast is for: an ordinary cluster kills a healthy node because of a long blackout."""

import pytest

from standfast.lab import demo


@pytest.mark.full
def test_without_standfast_a_blackout_of_15_s_kills_a_healthy_node_and_moves_its_service(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo.main(["a"]) == 0
    told = capsys.readouterr().out
    assert "cfguest1 has cfguest2 killed (reboot: ok)" in told
    assert "service r-cfguest2 starts on cfguest1" in told


@pytest.mark.full
def test_a_blackout_within_the_heartbeat_timeout_makes_the_demonstration_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demonstration can fail: it judges what happened, it does not recite it."""
    monkeypatch.setattr(demo, "BLACKOUT_SECONDS", 1.0)
    assert demo.main(["a"]) == 1
    assert "FAILED  the healthy node was killed" in capsys.readouterr().out
