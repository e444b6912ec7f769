"""What the linker and other machines must not see: weak symbols of instruction-set objects, exports beside the ABI, C++ in the header."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kernels import _lib, reference

KERNELS = Path(reference.__file__).parent
OBJECTS = sorted(KERNELS.parent.glob("build/**/isa_*.o"))
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
    _lib.Profile,
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
