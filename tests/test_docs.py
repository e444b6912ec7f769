"""Words that must not fall behind the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = re.compile(
    r'"((?:input|capture|capacity|internal|cancelled|photo|request|auth|quota|not_found|gone|conflict|compress)\.[a-z0-9_]+)"'
)
NOT_CODES = {"capture.id"}  # names of columns


def codes_in_source() -> set[str]:
    files = [path for package in ("api", "cli", "engine", "worker") for path in (ROOT / package).rglob("*.py")]
    return {code for path in files for code in CODE.findall(path.read_text())} - NOT_CODES


def test_every_error_code_has_its_line_in_the_documentation() -> None:
    documented = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert codes_in_source() - documented == set()
    assert documented - codes_in_source() == set()


def test_the_readme_names_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text())) - {"g"} <= targets


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    import subprocess

    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    pattern = re.compile(r"/(?:wo" + r"rk|ro" + r"ot|fa" + r"rm)/")
    for name in filter(None, names):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".ts", ".json", ".sh", ".h", ".inl", ".cpp", ""} and path.is_file():
            assert not pattern.search(path.read_text(errors="ignore")), name
