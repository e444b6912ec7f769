"""What nvcc makes of a CUDA kernel: its instructions, by loops, from ``cuobjdump -sass``.

Loops are found by branches that go back. What lies behind the last unconditional EXIT (slow paths of division and root, and of warps whose
lanes are not together) is taken for never run.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.cuda_resources import OURS, kernel_name

SOURCES = Path(__file__).parent.parent / "kernels"
FILES = ("project", "bin", "forward", "backward", "gradient", "loss", "finite")
FUNCTION, LINE = re.compile(r"Function : (\S+)"), re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);")
BACK = re.compile(r"\bBRA\b.*?0x([0-9a-f]+)")
WIDTHS = {".128": 4, ".64": 2}


@dataclass(frozen=True)
class Instruction:
    """One instruction: where it is and what it says."""

    at: int
    text: str

    @property
    def words(self) -> int:
        """32-bit words a lane that it moves through the pipe of shared memory and shuffles; 0 for all else."""
        name = re.search(r"\b(LDS|STS|SHFL)((?:\.\w+)*)", self.text)
        return max([1, *(width for mark, width in WIDTHS.items() if mark in name[2])]) if name else 0


@dataclass(frozen=True)
class Part:
    """A loop's body without the loops within, or, with ``begin`` 0, what is in no loop."""

    begin: int
    end: int
    instructions: int
    words: int  # through the pipe of shared memory, a lane


def disassemble(kernels: Path, cuobjdump: str) -> str:
    """Compile every source under ``kernels``/cuda for sm_90 and return the disassembly; raises ``CalledProcessError``."""
    texts = []
    path = f"{Path(cuobjdump).resolve().parent}{os.pathsep}{os.environ['PATH']}"  # where nvdisasm lies too
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            cubin = f"{folder}/{name}.cubin"
            source = kernels / "cuda" / f"{name}.cu"
            command = ["nvcc", "-arch=sm_90", "-std=c++17", "-O3", "-I", str(kernels / "include"), "-cubin", "-o", cubin, str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            done = subprocess.run(
                [cuobjdump, "-sass", cubin], check=True, capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": path}
            )
            texts.append(done.stdout)
    return "".join(texts)


def has_tools(cuobjdump: str) -> bool:
    """Say whether nvcc and this cuobjdump are to be had."""
    return bool(shutil.which("nvcc") and shutil.which(cuobjdump))


def kernels_in(text: str) -> dict[str, list[Instruction]]:
    """Return our kernels' instructions by name, as ``spread_kernel<1>``, without those that only fill up."""
    found: dict[str, list[Instruction]] = {}
    into: list[Instruction] | None = None
    for line in text.splitlines():
        function, instruction = FUNCTION.search(line), LINE.match(line)
        if function:
            ours = OURS.match(function[1])
            into = found.setdefault(kernel_name(int(ours[2]), ours[3]), []) if ours else None
        elif instruction and into is not None and "NOP" not in instruction[2]:
            into.append(Instruction(int(instruction[1], 16), instruction[2].strip()))
    return found


def parts_of(kernel: list[Instruction]) -> list[Part]:
    """Return what is in no loop, then the loops by where they begin, an outer one before those within."""
    ends = [each.at for each in kernel if each.text == "EXIT"]
    run = [each for each in kernel if not ends or each.at <= ends[-1]]
    ranges: dict[int, int] = {}
    for each in run:
        back = BACK.search(each.text)
        if back and int(back[1], 16) < each.at:
            begin = int(back[1], 16)
            ranges[begin] = max(each.at, ranges.get(begin, 0))
    spans = [(0, run[-1].at + 1), *sorted(ranges.items(), key=lambda span: (span[0], -span[1]))]
    parts = []
    for number, (begin, end) in enumerate(spans):
        within = [span for span in spans[number + 1 :] if begin <= span[0] and span[1] <= end]
        own = [each for each in run if begin <= each.at <= end and not any(low <= each.at <= high for low, high in within)]
        parts.append(Part(begin, end, len(own), sum(each.words for each in own)))
    return parts
