"""Starts the benchmark as a script: what `python -m tests.bench` does in the root of the repository."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("tests.bench", run_name="__main__", alter_sys=True)
