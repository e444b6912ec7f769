from dataclasses import fields

import pytest

from bench.ablation import ELEMENTS, read_changes, table
from engine.options import TrainOptions
from engine.train.recipe import ADC, BUDGET


def figures(name: str, variant: str, seed: int, psnr_db: float) -> dict:
    return {"set": name, "variant": variant, "seed": seed, "psnr_db": psnr_db, "ssim": 0.5, "cpu_seconds": 2.0, "n_gaussians": 1000}


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_changes_what_there_is_to_change(name: str) -> None:
    of_recipe = {field.name for field in fields(BUDGET)}
    of_options = {f"train.{field.name}" for field in fields(TrainOptions)}
    for changed, value in ELEMENTS[name].items():
        assert changed in of_recipe | of_options
        if changed in of_recipe:
            assert getattr(BUDGET, changed) != value
    assert len({str(changes) for changes in ELEMENTS.values()}) == len(ELEMENTS)


def test_differences_are_taken_run_by_run() -> None:
    rows = [figures("a", "base", 0, 20.0), figures("a", "base", 1, 21.0), figures("a", "x", 0, 20.5), figures("a", "x", 1, 21.7)]
    rows += [figures("b", "base", 0, 30.0), figures("b", "base", 1, 30.0), figures("b", "x", 0, 29.9), figures("b", "x", 1, 29.9)]
    cells = [cell.strip() for cell in table(rows).splitlines()[-1].strip("|").split("|")]
    assert cells[:4] == ["x", "25.50", "+0.25", "0.05"]
    assert cells[-2:] == ["+0.60", "-0.10"]


def test_changes_are_read_as_values() -> None:
    assert read_changes("noise_until=0, levels=[[0.1, 2]]") == {"noise_until": 0, "levels": [[0.1, 2]]}
    assert read_changes("") == {}


def test_the_classic_recipe_is_the_plain_one() -> None:
    assert (ADC.most_haste, ADC.levels, ADC.shell_share, ADC.opacity_reg, ADC.noise_until) == (1.0, (), 0.0, 0.0, 0.0)
