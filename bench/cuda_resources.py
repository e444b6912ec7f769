"""What every CUDA kernel takes, as ptxas reports it: ``python -m bench.cuda_resources LOG… --compiler VERSION [--write]``.

Registers, shared memory and spills. LOG is what ``nvcc -Xptxas -v`` printed. Compared with kernels/cuda/resources.txt, so that a
regression is seen without a card: a spill in any kernel fails at any version of nvcc, other numbers must be equal where the version
is the one that the file names.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "kernels" / "cuda" / "resources.txt"
OURS = re.compile(r"_ZN5splat3gpu\d+_GLOBAL__N__\w+?_(\w+?)_cu_[0-9a-f]{8}(\d+)(\w+)")
HEAD = "kernel architecture registers shared_bytes spilled_bytes"


@dataclass(frozen=True, order=True)
class Kernel:
    """One kernel on one architecture, as ptxas compiled it."""

    name: str
    architecture: str
    registers: int
    shared_bytes: int
    spilled_bytes: int

    def line(self) -> str:
        """Return the kernel as a line of resources.txt."""
        return f"{self.name} {self.architecture} {self.registers} {self.shared_bytes} {self.spilled_bytes}"


def parse(log: str) -> list[Kernel]:
    """Return our kernels in ptxas's report, sorted by name and architecture; those of libraries are left out."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        symbol, rest = part.split("'", 1)
        architecture = re.search(r"for '(\w+)'", rest)
        registers = re.search(r"Used (\d+) registers", rest)
        match = OURS.match(symbol)
        if not match or not architecture or not registers:
            continue
        shared = re.search(r"(\d+) bytes smem", rest)
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", rest)
        name = kernel_name(int(match[2]), match[3])
        frame = re.search(r"(\d+) bytes stack frame", rest)  # an array that is indexed by what is not known lies there too, and is as slow
        bytes_spilled = max(int(spilled[1]) + int(spilled[2]) if spilled else 0, int(frame[1]) if frame else 0)
        kernel = Kernel(name, architecture[1], int(registers[1]), int(shared[1]) if shared else 0, bytes_spilled)
        found[kernel.name, kernel.architecture] = kernel
    return sorted(found.values())


def kernel_name(length: int, mangled: str) -> str:
    """Return a kernel's name with its template argument, if it has one, as in ``spread_kernel<1>``."""
    name, rest = mangled[:length], mangled[length:]
    argument = re.match(r"I(?:L[a-z](\d+)E|([a-z]))E", rest)
    if not argument:
        return name
    kinds = {"t": "uint16_t", "j": "uint32_t"}
    return f"{name}<{argument[1] or kinds.get(argument[2], argument[2])}>"


def compare(kernels: list[Kernel], golden: list[str], *, same_compiler: bool) -> list[str]:
    """Return what is wrong, in words; empty when nothing is."""
    wrong = [f"{each.name} spills {each.spilled_bytes} bytes on {each.architecture}" for each in kernels if each.spilled_bytes]
    if not same_compiler:
        return wrong
    now, then = {each.line() for each in kernels}, set(golden)
    architectures = {each.architecture for each in kernels}
    gone = sorted(line for line in then - now if line.split()[1] in architectures)
    return wrong + [f"was: {line}" for line in gone] + [f"now: {line}" for line in sorted(now - then)]


def main() -> int:
    """Compare or write; the exit status says whether something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--compiler", required=True, help="version of nvcc, as 13.0.88")
    parser.add_argument("--write", action="store_true", help="make this the file to compare with")
    arguments = parser.parse_args()
    kernels = parse("".join(path.read_text() for path in arguments.logs))
    if not kernels:
        print("no kernel of ours in the report", file=sys.stderr)
        return 1
    if arguments.write:
        lines = [f"# nvcc {arguments.compiler}", f"# {HEAD}", *(each.line() for each in kernels)]
        GOLDEN.write_text("\n".join(lines) + "\n")
        return 0
    golden = GOLDEN.read_text().splitlines()
    wrong = compare(kernels, golden[2:], same_compiler=golden[0] == f"# nvcc {arguments.compiler}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(kernels)} kernels, {'as in resources.txt' if not wrong else f'{len(wrong)} differences from resources.txt'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
