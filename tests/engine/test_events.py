import pytest

from engine import errors, events


@pytest.mark.parametrize(
    "event",
    [
        events.StageStarted("poses"),
        events.Progress("train", 0.5, "half", {"psnr_db": 20.5}),
        events.Warned("ingest", "photo.blank", "a\nb \u2028 é.jpg is blank", {"name": "é"}),
        events.Checkpointed("train", 100),
        events.StageDone("compress", 1.5, False, {"n": 1}),
        events.failed("poses", errors.CaptureError("capture.x", "T", "D", "H", {"k": [1]})),
    ],
)
def test_an_event_survives_one_line_of_json(event: events.Event) -> None:
    line = events.to_json_line(event)
    assert line.isascii()
    assert "\n" not in line
    assert events.from_json_line(line) == event


def test_what_is_not_an_event_is_refused() -> None:
    with pytest.raises(ValueError, match="not an event"):
        events.from_json_line('{"type": "party"}')


@pytest.mark.parametrize("kind", [errors.InputError, errors.CaptureError, errors.CapacityError, errors.Cancelled, errors.InternalError])
def test_an_error_survives_its_dictionary(kind: type[errors.SplatError]) -> None:
    error = errors.from_dict(kind("a.b", "Title", "Detail", "Hint", {"n": 1}).to_dict())
    assert type(error) is kind
    assert error.to_dict()["hint"] == "Hint"
