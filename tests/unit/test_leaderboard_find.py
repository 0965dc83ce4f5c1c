"""Finding runs: links, folders that cannot be read, and odd things where a run.json should be."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import RunsNotFound
from tempeval.leaderboard.load import load

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK = "tempeval_mini_action"


def write(folder, method="baseline"):
    return made["write_run"](folder, method, tasks={TASK: made["sample_lines"](TASK, videos=2)})


def names(*paths):
    loaded = load(paths)
    assert not loaded.refusals
    return [run.name for run in loaded.runs]


def problem(*paths):
    loaded = load(paths)
    (found,) = loaded.refusals
    assert found.kind == "unreadable"
    assert found.action
    return found


def test_a_linked_run_folder_is_found_under_the_name_of_the_link(tmp_path):
    write(tmp_path / "runs" / "b")
    write(tmp_path / "else" / "p", "pas")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "else" / "p")
    assert names(tmp_path / "runs") == ["b", "linked"]
    assert names(tmp_path) == ["else/p", "runs/b"], "named without the link where that is possible"


def test_links_that_lead_back_end(tmp_path):
    write(tmp_path / "runs" / "a" / "b")
    for place, target in (("a/loop", "."), ("a/up", ".."), ("a/top", "/"), ("a/b/two", "a")):
        (tmp_path / "runs" / place).symlink_to(tmp_path / "runs" / target)
    (tmp_path / "runs" / "itself").symlink_to(tmp_path / "runs" / "itself")
    (tmp_path / "runs" / "outside").symlink_to(tmp_path)
    assert names(tmp_path / "runs") == ["b"]


def test_two_folders_that_link_to_each_other(tmp_path):
    for one, two in (("x", "y"), ("y", "x")):
        write(tmp_path / one / "run")
        (tmp_path / one / "other").symlink_to(tmp_path / two)
    assert names(tmp_path) == ["x/run", "y/run"]
    assert names(tmp_path / "x") == ["other/run", "run"]


def test_linked_files_are_of_the_run_they_lie_in(tmp_path):
    """As in the caches of git-annex and the Hugging Face hub."""
    for name in ("a", "b"):
        folder = write(tmp_path / "runs" / name, name)
        for file in sorted(folder.iterdir()):
            blob = tmp_path / "blobs" / name / f"{file.name}.blob"
            blob.parent.mkdir(parents=True, exist_ok=True)
            file.rename(blob)
            file.symlink_to(blob)
    loaded = load([tmp_path / "runs"])
    assert ([run.name for run in loaded.runs], loaded.refusals) == (["a", "b"], ())
    assert len(loaded.entries) == 2


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_record_that_is_no_file_is_listed(tmp_path, kind):
    write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    record = tmp_path / "b" / "run.json"
    if kind == "link":
        record.symlink_to("nowhere")
    elif kind == "folder":
        record.mkdir()
    else:
        os.mkfifo(record)
    found = problem(tmp_path)
    assert (found.run, found.field, found.value) == ("b", "run.json", "b/run.json")
    said = {"link": "link to 'nowhere'", "folder": "a folder, not a file", "pipe": "no regular"}
    assert said[kind] in found.reason


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    write(tmp_path / "a")
    write(tmp_path / "locked")
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = problem(tmp_path)
    assert (found.run, found.field) == ("locked", "folder")
    assert "Permission denied" in found.reason
    with pytest.raises(RunsNotFound, match="Permission denied"):
        load([tmp_path / "locked"])
