"""Chaos over real processes: ``python -m tests.faults.chaos --jobs 200 --seed 1 --stack embedded --json OUT``.

Clients start so many jobs while workers, stages, dispatchers, broker and api are killed, stopped, wiped and told twice. When all is
healthy again and everything has had time to end, nothing may be lost, stuck, doubled, half published or out of order.
"""

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos.plant import STACKS
from tests.faults.chaos.run import Plan, run


def main() -> int:
    """Run as the command line says; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed when it is not given")
    parser.add_argument("--stack", choices=list(STACKS), default="embedded")
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    parser.add_argument("--minutes", type=float, default=None, help="faults end after so long, whatever still runs")
    parser.add_argument("--gap", type=float, default=1.5, help="mean seconds between two faults")
    parser.add_argument("--every", type=float, default=0.6, help="seconds between two jobs started")
    parser.add_argument("--engine", choices=["fake", "real"], default="fake")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is kept; else a folder that goes when all is well")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(1_000_000)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="sw-chaos-"))
    print(f"seed {seed}, {given.jobs} jobs, stack {given.stack}, engine {given.engine}; logs in {folder}", flush=True)
    result = run(Plan(given.jobs, seed, given.stack, given.minutes, given.gap, given.every, given.engine == "real"), folder)
    text = json.dumps(result, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    if result["is_clean"] and given.folder is None:
        shutil.rmtree(folder)
    return 0 if result["is_clean"] else 1


if __name__ == "__main__":
    sys.exit(main())
