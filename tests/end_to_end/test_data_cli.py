"""`tempeval data` on rendered benchmarks in their official layouts, and on archives of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchmark_fixtures import add_missing, render
from commands import started

from tempeval.benchmarks.check import check
from tempeval.benchmarks.registry import BENCHMARKS
from tempeval.benchmarks.sources import load_docs

if TYPE_CHECKING:
    from collections.abc import Sequence

BIN = Path(sys.executable).parent
SIZE_BYTES = 20_000


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("benchmarks")
    return folder, render(folder)


def tempeval(*arguments: object, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TEMPEVAL")}
    done = subprocess.run(
        [BIN / "tempeval", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_every_benchmark_has_a_fixture(rendered: tuple[Path, dict[str, Any]]) -> None:
    assert set(rendered[1]) == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_readers_find_what_was_rendered(rendered: tuple[Path, dict[str, Any]], name: str) -> None:
    root, made = rendered[0], rendered[1][name]
    docs = [
        doc
        for split in made["splits"]
        for doc in load_docs({"benchmark": name, "split": split}, root)
    ]
    assert sorted(doc["sample_id"] for doc in docs) == sorted(made["items"])
    lost = [doc["sample_id"] for doc in docs if not Path(doc["video"]).exists()]
    assert sorted(lost) == sorted(made["missing"])
    report = check(name, root, made["splits"])
    assert report.items == len(made["items"])
    assert report.videos.wanted == made["videos"]
    assert len(report.videos.missing) == 1
    assert (report.videos.empty, report.videos.gaps) == ([], {})
    assert not report.complete


@pytest.mark.parametrize("name", ["jester", "kinetics700", "mvbench", "sqa3d"])
def test_a_benchmark_is_complete_with_its_last_video(tmp_path: Path, name: str) -> None:
    render(tmp_path, name)
    tempeval("data", "check", name, "--data-root", tmp_path, code=1)
    add_missing(tmp_path, name)
    assert ": complete" in tempeval("data", "check", name, "--data-root", tmp_path)


def test_the_list_names_all_benchmarks_with_status_and_licence(
    rendered: tuple[Path, dict[str, Any]],
) -> None:
    root, made = rendered
    found = json.loads(tempeval("data", "list", "--data-root", root, "--json"))
    assert list(found) == list(BENCHMARKS)
    for name, row in found.items():
        videos = made[name]["videos"]
        assert row["status"] == f"{videos - 1} of {videos} videos"
        assert row["licence"]
    lines = tempeval("data", "list", "--data-root", root / "nowhere").splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["missing"] * len(BENCHMARKS)


def jester_parts(folder: Path, clips: Sequence[int]) -> dict[str, bytes]:
    """Pack frames as Qualcomm does: a gzipped tar, cut into parts; return the members."""
    members = {
        f"20bn-jester-v1/{clip}/{number:05d}.jpg": os.urandom(SIZE_BYTES)
        for clip in clips
        for number in range(1, 13)
    }
    source = folder / "members"
    for name, content in members.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    with tarfile.open(folder / "whole.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(source / "20bn-jester-v1", "20bn-jester-v1")
    data = (folder / "whole.tgz").read_bytes()
    step = len(data) // 5 + 1
    for part in range(5):
        (folder / f"20bn-jester-v1-{part:02d}").write_bytes(data[part * step : (part + 1) * step])
    return members


def test_prepare_goes_on_after_a_kill(tmp_path: Path) -> None:
    downloads, root = tmp_path / "downloads", tmp_path / "data"
    downloads.mkdir()
    clips = range(120)
    members = jester_parts(downloads, clips)
    home = root / "jester"
    home.mkdir(parents=True)
    (home / "jester-v1-labels.csv").write_text("Thumb Up\n")
    (home / "jester-v1-validation.csv").write_text("".join(f"{c};Thumb Up\n" for c in clips))
    arguments = ["data", "prepare", "jester", "--data-root", root, "--from", downloads]
    with started([BIN / "tempeval", *arguments], tmp_path / "killed") as command:
        command.until(lambda: sum(1 for _ in home.glob("20bn-jester-v1/*")) > 20)
        command.kill()
    found = list(home.rglob("*.jpg"))
    assert 200 < len(found) < len(members)
    for path in found:
        assert path.read_bytes() == members[path.relative_to(home).as_posix()]
    before = {path: path.stat().st_mtime_ns for path in found}
    done = tempeval(*arguments)
    assert "20bn-jester-v1-00" in done
    assert "20BN-Jester (jester): complete" in done
    assert sorted(p.name for p in downloads.iterdir() if p.is_file())[0] == "20bn-jester-v1-00"
    whole = {path.relative_to(home).as_posix(): path for path in home.rglob("*.jpg")}
    assert {name: path.read_bytes() for name, path in whole.items()} == members
    # At most the member whose line was not yet written is unpacked twice.
    assert sum(path.stat().st_mtime_ns != moment for path, moment in before.items()) <= 1
    assert not list(home.rglob("*partial"))
    assert f"{len(members)} kept" in tempeval(*arguments)


def test_a_damaged_archive_is_named_and_the_exit_code_is_1(tmp_path: Path) -> None:
    jester_parts(tmp_path, range(20))
    part = tmp_path / "20bn-jester-v1-02"
    data = bytearray(part.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    part.write_bytes(data)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TEMPEVAL")}
    done = subprocess.run(
        [
            *(BIN / "tempeval", "data", "prepare", "jester"),
            *("--data-root", tmp_path / "data", "--from", tmp_path),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "20bn-jester-v1-00" in done.stderr
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "data").rglob("*.jpg"))
    assert not list((tmp_path / "data").rglob("*partial"))
