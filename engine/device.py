"""Which device a process works on: SPLATWORKS_DEVICE, a card where there is one, else the CPU."""

import os

import torch

from engine.errors import CapacityError, InputError
from kernels.step import Device

SETTING = "SPLATWORKS_DEVICE"
CPU = "cpu"


def device_name() -> str:
    """Return "cpu", "cuda" or "cuda:N" as SPLATWORKS_DEVICE says; unset or "auto", a card where kernels and torch find one, else the CPU.

    Raises ``InputError`` ``input.invalid_setting`` for another word.
    """
    asked = os.environ.get(SETTING, "").strip().lower() or "auto"
    kind, _, ordinal = asked.partition(":")
    if kind not in ("auto", CPU, "cuda") or (":" in asked and (kind != "cuda" or not ordinal.isdecimal())):
        raise InputError("input.invalid_setting", "Invalid setting", f"{SETTING} is {asked!r}", "It may be auto, cpu, cuda or cuda:N.")
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() and _has_kernels() else CPU


def open_device(name: str = "", n_threads: int = 0, *, waits: bool = True) -> Device:
    """Return a device by its name, by default the process's. With ``waits`` false a card's figures and errors are those of the step before.

    Raises ``CapacityError`` ``capacity.no_card`` where a card is asked for and kernels, driver or torch lack it; says which.
    """
    name = name or device_name()
    if name == CPU:
        return Device(CPU, n_threads)
    try:
        device = Device(name, n_threads, waits=waits)
    except RuntimeError as error:
        raise _no_card(name, str(error)) from error
    if device.tensors.type == "cuda" and not torch.cuda.is_available():
        raise _no_card(name, f"this torch ({torch.__version__}) finds no card: it was built without CUDA, or does not fit the driver")
    return device


def to_measure(device: Device, name: str) -> Device:
    """Return a device for pictures that are looked at: ``device`` itself on a CPU; on a card a second one, whose calls wait.

    What a card that does not wait has drawn is only known a frame later, and it makes room for frames like the one before.
    """
    return device if name == CPU else open_device(name)


def finish(where: torch.device) -> None:
    """Wait until a card has done what it was told; a CPU always has."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def _has_kernels() -> bool:
    try:
        Device("cuda")
    except RuntimeError:
        return False
    return True


def _no_card(name: str, why: str) -> CapacityError:
    hint = f"Set {SETTING}=auto or cpu, or mend that."
    return CapacityError("capacity.no_card", "No such card", f"{SETTING} asks for {name}: {why}", hint)
