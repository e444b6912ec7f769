"""Every tensor says where it is made: on a machine without a card a forgotten device shows nowhere else."""

import ast
from pathlib import Path

import pytest

from engine.train import train

ENGINE = Path(train.__file__).parents[1]
FILES = [*sorted((ENGINE / "train").glob("*.py")), *sorted((ENGINE / "compress").glob("*.py")), ENGINE / "render.py", ENGINE / "order.py"]
NAMES = ("zeros", "ones", "empty", "full", "rand", "randn", "randint", "randperm", "arange", "linspace", "eye", "tensor")
MAKERS = {f"torch.{name}" for name in NAMES}


def made_nowhere(source: str) -> list[str]:
    """Return the calls ``torch.zeros(…)`` and the like without ``device=``, with their lines."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) in MAKERS]
    return [f"{call.lineno}: {ast.unparse(call)}" for call in calls if "device" not in {word.arg for word in call.keywords}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_new_tensor_names_its_device(path: Path) -> None:
    assert made_nowhere(path.read_text()) == []


def test_a_forgotten_device_is_found() -> None:
    assert made_nowhere("x = torch.zeros(3)") == ["1: torch.zeros(3)"]
    assert made_nowhere("x = torch.zeros(3, device=where)") == []
