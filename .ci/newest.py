"""Run the whole suite with the newest versions that resolve, and record how it ended: `make long`.

Run by the Python of the environment that is to be tested. The page is written for a suite that was
run to its end, whether it passed or not; the exit code is pytest's.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "versions.md"
NAMES = [
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "lmms-eval",
    "datasets",
    "av",
    "peft",
]
HEAD = """# Versions that the suite was run with

`make test` runs with what `pip install` resolves on the machine. `make long` makes an environment
of its own with the newest releases that the package accepts, whatever this machine pins, runs every
test that needs no GPU in it, and adds a line here.

| date | commit | Python | {names} | tests |
| --- | --- | --- | {rules} | --- |
"""


def main() -> int:
    """Run the tests; return pytest's exit code."""
    arguments = sys.argv[1:] or ["-n", "2"]
    command = [sys.executable, "-m", "pytest", "-m", "not gpu", "--color=no", *arguments]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:  # noqa: S603
        for line in tests.stdout or ():
            sys.stdout.write(line)
            if re.search(r"\d+ (passed|failed|errors?)\b.* in [0-9.]+s", line):
                last = re.sub(r"^=+ | =+$", "", line.strip())
    if last:
        record(last)
    return tests.returncode


def record(summary: str) -> None:
    """Add a line to the page."""
    versions = [importlib.metadata.version(name) for name in NAMES]
    described = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    row = [f"{datetime.now(UTC):%Y-%m-%d}", described.stdout.strip(), platform.python_version()]
    head = HEAD.format(names=" | ".join(NAMES), rules=" | ".join("---" for _ in NAMES))
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else head
    PAGE.write_text(f"{text}| {' | '.join([*row, *versions, summary])} |\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
