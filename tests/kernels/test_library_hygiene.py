"""What the linker and other machines must not see: weak symbols of instruction-set objects, exports beside the ABI, C++ in the header."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kernels import _lib, reference
from kernels.match import MatchArgs

KERNELS = Path(reference.__file__).parent
# Not those of `make kernels-check`: sanitizers add symbols of their own, and some are another machine's.
OBJECTS = sorted(path for path in KERNELS.parent.glob("build/**/isa_*.o") if "check" not in path.parts)
HEADER = KERNELS / "include" / "splat" / "splat.h"


def nm(*arguments: str | Path) -> list[str]:
    """Return the lines of nm, or skip where binutils is missing."""
    if shutil.which("nm") is None:
        pytest.skip("nm (binutils) is not on this machine")
    return subprocess.run(["nm", "-C", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


@pytest.mark.skipif(not OBJECTS, reason="no build directory with objects; an editable install leaves one")
@pytest.mark.parametrize("built", OBJECTS, ids=lambda path: path.name)
def test_instruction_set_objects_hold_no_weak_symbols(built: Path) -> None:
    """The linker keeps one copy of a weak function for everybody: an AVX-512 copy would crash machines without it."""
    assert [line for line in nm(built) if re.search(r" [WVu] ", line)] == []


@pytest.mark.skipif(not OBJECTS, reason="no build directory with objects; an editable install leaves one")
@pytest.mark.parametrize("built", OBJECTS, ids=lambda path: path.name)
def test_loops_call_nothing_but_copies(built: Path) -> None:
    """A call to libm in a loop over pixels is a vector taken apart: the compiler did not find the instruction that was meant."""
    called = {line.split()[-1] for line in nm("--undefined-only", built)}
    # SSE2 has no instruction that counts bits; only the lane counts for benchmarks need one.
    assert called <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_", "__popcountdi2"}


LATER_REGISTERS = {  # of instruction sets beyond the one that an object is for
    "isa_avx512": r"(?!)",
    "isa_avx2": r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]",
}
BASELINE = r"%[yz]mm|%k[0-7]"


@pytest.mark.skipif(not OBJECTS or platform.machine() != "x86_64", reason="no build directory with objects, or no x86 ones")
@pytest.mark.parametrize("built", sorted({other for each in OBJECTS for other in each.parent.glob("*.o")}), ids=lambda path: path.name)
def test_no_object_holds_registers_of_a_later_machine(built: Path) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not on this machine")
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", built], check=True, capture_output=True, text=True, timeout=60).stdout
    assert code.count("\n") > 20
    assert re.search(LATER_REGISTERS.get(built.name.split(".")[0], BASELINE), code) is None


def test_the_library_exports_the_abi_and_nothing_else() -> None:
    exported = {line.split()[-1] for line in nm("-D", "--defined-only", _lib.load("cpu")._name) if not re.search(r" [aA] ", line)}
    declared = set(re.findall(r"^SPLAT_API .*?\b(splat_\w+)\(", HEADER.read_text(), flags=re.MULTILINE))
    assert len(declared) >= 10
    assert exported == declared


def compile_c(text: str, folder: Path) -> Path:
    """Return the program made of strict C99 source text that includes the header, or skip where there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    source = folder / "program.c"
    source.write_text(text)
    strict = ["-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-I", KERNELS / "include"]
    subprocess.run([compiler, *strict, source, "-o", folder / "program"], check=True, timeout=60)
    return folder / "program"


STRUCTS = [
    _lib.ContextOptions,
    _lib.ContextInfo,
    _lib.Camera,
    _lib.ForwardArgs,
    _lib.LossArgs,
    _lib.BackwardArgs,
    _lib.BackwardAdamArgs,
    _lib.ContributionArgs,
    _lib.KnnArgs,
    MatchArgs,
    _lib.Profile,
    _lib.StreamArgs,
]


def test_the_header_is_plain_c_and_python_lays_its_structs_out_alike(tmp_path: Path) -> None:
    lines, expected = [], []
    for struct in STRUCTS:
        name = f"Splat{struct.__name__}"
        lines.append(f'printf("{name} %d\\n", (int)sizeof({name}));')
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %d %d\\n", (int)offsetof({name}, {field}), (int)sizeof((({name} *)0)->{field}));')
            description = getattr(struct, field)
            expected.append(f"{name}.{field} {description.offset} {description.size}")
    text = "#include <stdio.h>\n#include <splat/splat.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    printed = subprocess.run([compile_c(text, tmp_path)], check=True, capture_output=True, text=True, timeout=60).stdout
    assert printed.splitlines() == expected


def test_python_knows_every_struct_of_the_header() -> None:
    declared = set(re.findall(r"^} (Splat\w+);", HEADER.read_text(), flags=re.MULTILINE)) - {"SplatStatus", "SplatIsa", "SplatStage"}
    assert declared == {f"Splat{struct.__name__}" for struct in STRUCTS}
