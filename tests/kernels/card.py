"""A card with the CPU's manners, so that every test of the kernels runs on it as it is."""

from dataclasses import fields, is_dataclass
from typing import Any

import torch

from kernels.step import Device


class OnCard:
    """A ``Device`` whose calls take tensors of the CPU: they are copied to the card, and back when the call returns."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._device, name)
        if not callable(method):
            return method

        def call(*values: Any, **named: Any) -> Any:
            pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
            result = method(
                *[self._moved(each, pairs) for each in values], **{key: self._moved(each, pairs) for key, each in named.items()}
            )
            for here, there in pairs:
                here.copy_(there)
            return result.cpu() if isinstance(result, torch.Tensor) else result

        return call

    def _moved(self, value: Any, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
        if isinstance(value, torch.Tensor):
            there = value.to(self._device.tensors)
            pairs.append((value, there))
            return there
        if is_dataclass(value) and any(isinstance(getattr(value, field.name), torch.Tensor) for field in fields(value)):
            return type(value)(**{field.name: self._moved(getattr(value, field.name), pairs) for field in fields(value)})
        return value
