"""What a worker says of its card, asked of the real engine."""

import sys

import pytest

from api.settings import Settings
from engine.errors import CapacityError
from worker.card import device_of


def test_a_worker_for_the_cpu_queue_says_its_setting_and_tries_nothing(tmp_path):
    assert device_of(Settings(data_dir=tmp_path, device="auto", engine_command=("/none",)), {"cpu"}) == "auto"


def test_a_worker_for_cards_is_refused_when_the_real_engine_would_use_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATWORKS_DEVICE", "cpu")
    with pytest.raises(CapacityError, match="would run on the CPU"):
        device_of(Settings(data_dir=tmp_path), {"gpu"})


def test_the_real_engine_names_the_card_that_it_misses(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATWORKS_DEVICE", "cuda:63")
    with pytest.raises(CapacityError, match="asks for cuda:63"):
        device_of(Settings(data_dir=tmp_path), {"gpu"})


def test_a_card_is_known_by_what_the_engine_says_and_a_broken_engine_by_its_end(tmp_path):
    found = (sys.executable, "-c", "print('cuda: NVIDIA H200')")
    assert device_of(Settings(data_dir=tmp_path, engine_command=found), {"gpu"}) == "cuda: NVIDIA H200"
    broken = (sys.executable, "-c", "raise SystemExit(7)")
    with pytest.raises(CapacityError, match="exit code 7"):
        device_of(Settings(data_dir=tmp_path, engine_command=broken), {"gpu", "cpu"})
