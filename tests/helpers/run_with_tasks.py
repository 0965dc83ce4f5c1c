"""`python run_with_tasks.py FOLDER run ...` is `tempeval run ...` over the tasks of FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from tempeval import cli, host, tasklist

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    for module in (tasklist, host):
        module.tasks_path = lambda: folder  # type: ignore[attr-defined]
    cli.main()
