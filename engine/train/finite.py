"""Numbers that are none: a run that meets NaN or Inf stops and says where, and no checkpoint that holds one is taken up again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from engine.errors import InternalError


@contextmanager
def finite_in(where: str) -> Iterator[None]:
    """Turn what the kernels say of a value that is not finite into an error that names ``where``: the step and the photo."""
    try:
        yield
    except FloatingPointError as error:
        raise InternalError(
            "internal.not_finite",
            "Training diverged",
            f"{where}: {error}",
            "Run it again with another seed (--set seed=1). If that ends the same way, report it with this text.",
        ) from error


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether no tensor holds NaN or Inf."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())
