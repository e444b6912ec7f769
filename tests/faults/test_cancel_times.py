"""Cancels at random moments, a few and with quick clocks; the full number is a command (tests/faults/cancel_times.py)."""

from pathlib import Path

from tests.faults.cancel_times import Trial, run

HEARTBEAT_S, GRACE_S, SLACK_S = 0.3, 1.0, 6.0


def test_a_cancelled_job_leaves_no_process_whenever_it_is_cancelled(tmp_path: Path) -> None:
    clocks = {"SPLATWORKS_HEARTBEAT_S": str(HEARTBEAT_S), "SPLATWORKS_TERM_GRACE_S": str(GRACE_S), "SPLATWORKS_POLL_S": "0.2"}
    told = run(Trial(4, 7, "fake", 0.5, HEARTBEAT_S + GRACE_S + SLACK_S, clocks), tmp_path)
    assert told["passed"], told
    assert {each["is_deaf"] for each in told["each"]} == {True, False}
