import json
from dataclasses import asdict

import pytest

from engine.errors import InputError
from engine.options import PRESETS, TrainOptions, from_dict, preset, with_overrides


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    assert from_dict(json.loads(json.dumps(asdict(preset(name))))) == PRESETS[name]


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        preset("ultra")
    assert caught.value.code == "input.unknown_preset"
    assert all(name in caught.value.hint for name in PRESETS)


def test_steps_that_are_asked_for_are_not_stretched_by_many_photos() -> None:
    assert preset("draft").train.min_visits == 40
    assert with_overrides(preset("draft"), {"train": {"steps": 11}}).train.min_visits == 0
    assert with_overrides(preset("draft"), {"train": {"steps": 11, "min_visits": 5}}).train.min_visits == 5
    assert with_overrides(preset("draft"), {"train": {"max_side": 320}}).train.min_visits == 40


def test_a_degree_that_is_asked_for_is_not_lowered_by_few_photos() -> None:
    assert preset("high").train.photos_per_degree == 15
    assert with_overrides(preset("high"), {"train": {"sh_degree": 3}}).train.photos_per_degree == 0
    assert with_overrides(preset("high"), {"train": {"sh_degree": 3, "photos_per_degree": 5}}).train.photos_per_degree == 5
    assert with_overrides(preset("high"), {"train": {"steps": 11}}).train.photos_per_degree == 15


def test_overrides_reach_nested_groups_and_leave_the_rest() -> None:
    options = with_overrides(preset("draft"), {"seed": 7, "train": {"steps": 11}})
    assert (options.seed, options.train.steps) == (7, 11)
    assert options.train.max_side == preset("draft").train.max_side


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"train": {"stepz": 1}}, "train.stepz"),
        ({"trian": {}}, "trian"),
        ({"train": {"steps": 0}}, "steps"),
        ({"train": {"steps": "many"}}, "steps"),
        ({"train": {"steps": True}}, "steps"),
        ({"train": {"min_psnr_db": float("nan")}}, "min_psnr_db"),
        ({"compress": {"formats": ["ply", "exe"]}}, "exe"),
        ({"compress": {"formats": []}}, "empty"),
        ({"train": 5}, "train"),
        ({"train": {"steps": 10**400}}, "steps is 10+…; it must lie between 1 and 200000"),
        ({"train": {"checkpoint_s": -(10**400)}}, "checkpoint_s"),
        ({"poses": {"time_limit_s": 10**400}}, "time_limit_s"),
        ({"train": {"strategy": "x" * 10_000}}, "strategy has .{1,70}; allowed"),
        ({"preset": "high"}, "preset"),
    ],
)
def test_a_wrong_override_is_refused_by_name(overrides: dict, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        with_overrides(preset("draft"), overrides)
    assert caught.value.hint


def test_every_option_says_what_it_is() -> None:
    from dataclasses import fields

    for group in (preset("draft").ingest, preset("draft").poses, TrainOptions(), preset("draft").compress):
        assert all(spec.metadata.get("help") for spec in fields(group))
