"""Gaussians to write and read back: a small fixed scene, random ones, and a Hypothesis strategy."""

import numpy as np
from hypothesis import strategies as st

from engine.gaussians import Gaussians


def tiny_scene() -> Gaussians:
    """Two gaussians of degree 1 with values whose codes can be worked out by hand."""
    sh = np.zeros((2, 4, 3), np.float32)
    sh[0, 0] = [0.0, 1.0, -1.0]
    sh[0, 1:] = [[0.5, -0.5, 0.25], [0.0, 1.0, -1.0], [0.125, 0.0, 0.0]]
    return Gaussians(
        means=np.array([[0.5, -1.25, 2.0], [-3.0, 0.125, 0.75]], np.float32),
        log_scales=np.array([[-4.0, -3.0, -5.0], [-1.5, -2.25, -6.0]], np.float32),
        quats=np.array([[1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.5, 0.5]], np.float32),
        opacity_logits=np.array([0.0, 3.0], np.float32),
        sh=sh,
    )


def random_scene(n: int, degree: int, seed: int = 0, spread: float = 2.0) -> Gaussians:
    """N gaussians with everything drawn at random."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0, middle: float = 0.0):
        return (middle + scale * random.standard_normal(shape)).astype(np.float32)

    return Gaussians(
        means=normal(n, 3, scale=spread),
        log_scales=normal(n, 3, middle=-4.0),
        quats=normal(n, 4),
        opacity_logits=normal(n, scale=2.0),
        sh=normal(n, (degree + 1) ** 2, 3, scale=0.3),
    )


def same(first: Gaussians, second: Gaussians) -> bool:
    """Whether two scenes are bit for bit the same."""
    names = ("means", "log_scales", "quats", "opacity_logits", "sh")
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in names)


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32, allow_nan=False)


@st.composite
def scenes(draw: st.DrawFn) -> Gaussians:
    """1 to 6 gaussians of any degree, with extreme but finite values."""
    n = draw(st.integers(1, 6))
    bases = draw(st.sampled_from([1, 4, 9, 16]))

    def array(low: float, high: float, *shape: int):
        size = int(np.prod(shape))
        return np.array(draw(st.lists(floats(low, high), min_size=size, max_size=size)), np.float32).reshape(shape)

    return Gaussians(
        means=array(-1e6, 1e6, n, 3),
        log_scales=array(-30.0, 20.0, n, 3),
        quats=array(-4.0, 4.0, n, 4),
        opacity_logits=array(-40.0, 40.0, n),
        sh=array(-6.0, 6.0, n, bases, 3),
    )
