"""A task over any video files, its runs, and what they leave on disk.

`tempeval run` searches its own package for tasks; here it is shown a folder of the test instead:
`run_with_tasks.py` does that in a fresh process, `shown_tasks` in this one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval import host, tasklist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

TASK = "tempeval_videos"
CHOICE_TASK = "tempeval_videos_choice"
TEMPLATE = Path(__file__).parent / "tiny_tasks" / "videos"


def write_task(
    folder: Path,
    videos: Iterable[Path],
    questions: Sequence[str] = ("Is it faster?",),
    fps: float | None = None,
) -> Path:
    """Write both tasks over the given videos, question by question; return the folder.

    Args:
        folder: new folder.
        videos: files, or frame folders if `fps` is given.
        questions: asked about every video.
        fps: frames per second of frame folders.
    """
    shutil.copytree(TEMPLATE, folder)
    paths = list(videos)
    rows = [
        {
            "sample_id": f"{path.name}-{number}",
            "video_id": path.name,
            "content_hash": f"{path.name} {question}",
            "video": str(path),
            "fps": fps,
            "question": question,
            "answer": "yes",
        }
        for number, question in enumerate(questions)
        for path in paths
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def show_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process find the tasks of a folder instead of the package's own."""
    for module in (tasklist, host):
        monkeypatch.setattr(module, "tasks_path", lambda: folder)
    # Undone by monkeypatch at the end of the test, also when it fails: no other test sees these.
    monkeypatch.setattr(host, "task_entries", tasklist.task_entries)


def record_of(run: Path) -> dict[str, Any]:
    """Return the record of a run folder."""
    record: dict[str, Any] = json.loads((run / "run.json").read_text())
    return record


def samples_of(run: Path, task: str = TASK) -> dict[str, dict[str, Any]]:
    """Return the lines of a samples file by sample id."""
    path = run / record_of(run)["tasks"][task]["samples_file"]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["sample_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def without_times(value: Any) -> Any:
    """Drop every field that is a measured time, at any depth."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("_ms")}
    if isinstance(value, list):
        return [without_times(part) for part in value]
    return value


def all_samples(out: Path) -> dict[str, list[Any]]:
    """Return the lines of all samples files of a matrix, in file order and apart from times."""
    found = {}
    for record in sorted(out.rglob("run.json")):
        for task, facts in json.loads(record.read_text())["tasks"].items():
            lines = (record.parent / facts["samples_file"]).read_text().splitlines()
            name = f"{record.parent.relative_to(out)} {task}"
            found[name] = [without_times(json.loads(line)) for line in lines]
    return found
