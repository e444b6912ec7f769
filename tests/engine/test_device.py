import shutil
from pathlib import Path

import pytest
import torch

from engine.device import device_name, open_device, to_measure
from engine.errors import CapacityError, InputError
from kernels import _lib


@pytest.mark.parametrize(("asked", "name"), [("cpu", "cpu"), ("cuda", "cuda"), (" CUDA:3 ", "cuda:3")])
def test_the_setting_names_the_device(monkeypatch: pytest.MonkeyPatch, asked: str, name: str) -> None:
    monkeypatch.setenv("SPLATWORKS_DEVICE", asked)
    assert device_name() == name


@pytest.mark.parametrize("asked", ["gpu", "cpu:0", "cuda:", "cuda:first", "auto:1", "cuda:-1"])
def test_another_word_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("SPLATWORKS_DEVICE", asked)
    with pytest.raises(InputError, match=f"SPLATWORKS_DEVICE is '{asked}'") as caught:
        device_name()
    assert caught.value.code == "input.invalid_setting"


@pytest.mark.parametrize("asked", ["", "auto", None])
def test_without_a_setting_a_card_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, asked: str | None) -> None:
    monkeypatch.delenv("SPLATWORKS_DEVICE", raising=False)
    if asked is not None:
        monkeypatch.setenv("SPLATWORKS_DEVICE", asked)
    device = open_device(device_name())
    assert device.tensors.type == "cuda" if torch.cuda.is_available() and device.info().on_card else device.info().name != "shim"


def test_a_card_without_its_kernels_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLATWORKS_KERNELS", raising=False)
    shutil.copy(_lib.library_path("cpu"), tmp_path)
    monkeypatch.setenv("SPLATWORKS_KERNELS", str(tmp_path))
    with pytest.raises(CapacityError, match=r"SPLATWORKS_DEVICE asks for cuda: .*libsplat_cuda\.so") as caught:
        open_device("cuda")
    assert caught.value.code == "capacity.no_card"
    assert "SPLATWORKS_DEVICE=auto or cpu" in caught.value.hint
    assert open_device("cpu").info().n_threads >= 1


def test_a_cpu_measures_with_the_device_that_it_trains_with() -> None:
    device = open_device("cpu", 1, waits=False)
    assert to_measure(device, "cpu") is device
