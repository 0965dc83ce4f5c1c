"""`tempeval data`: what is there, what is missing, and archives that come out whole."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
from benchmark_fixtures import TOY, register
from typer.testing import CliRunner

from tempeval import archive_members
from tempeval.archive_members import Limits
from tempeval.archives import extracted
from tempeval.benchmarks import unpack as unpack_module
from tempeval.benchmarks.avqa import AVQA
from tempeval.benchmarks.base import Archive, BadData, Counts, MissingData
from tempeval.benchmarks.check import check
from tempeval.benchmarks.jester import JESTER
from tempeval.benchmarks.listing import benchmark_table, items_text, rows
from tempeval.benchmarks.music_avqa import MUSIC_AVQA
from tempeval.benchmarks.mvbench import MVBENCH
from tempeval.benchmarks.parts import Joined, archive_files, matching
from tempeval.benchmarks.prepare import prepare
from tempeval.benchmarks.report_text import human_bytes, report_lines
from tempeval.benchmarks.sources import load_docs
from tempeval.benchmarks.ssv2 import SSV2
from tempeval.benchmarks.tape import Tape
from tempeval.benchmarks.unpack import PARTIAL, CannotWrite, unpack
from tempeval.benchmarks.video_files import first_gap, survey
from tempeval.cli import app
from tempeval.errors import BadArchive, UnknownName

CLIPS = {f"{n}.mp4": os.urandom(3000 + n) for n in range(6)}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.delenv("TEMPEVAL_DATA", raising=False)
    register(monkeypatch)


def put(root, names=("a.mp4", "b"), split="test"):
    """Write annotations of `names`; a name without a dot is a folder of four frames."""
    home = root / "toy"
    (home / "clips").mkdir(parents=True, exist_ok=True)
    (home / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for name in names:
        if "." in name:
            (home / "clips" / name).write_bytes(b"12345")
            continue
        (home / "clips" / name).mkdir()
        for number in (1, 2, 3, 4):
            (home / "clips" / name / f"{number:05d}.jpg").write_bytes(b"1234567")
    return home


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def split_file(path, folder, stem, pieces, digits="02d"):
    folder.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    step = -(-len(data) // pieces)
    for number in range(pieces):
        part = folder / f"{stem}{number:{digits}}"
        part.write_bytes(data[number * step : (number + 1) * step])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def unpacked(archive, target, **options):
    (files,) = archive_files([archive])
    return unpack(files, target, target.parent / "state.jsonl", **options)


# What is there


def test_a_complete_benchmark_is_complete(tmp_path) -> None:
    put(tmp_path)
    (split,) = check("toy", tmp_path, ["test"]).splits
    assert split.complete
    assert split.items == split.videos.there == split.videos.wanted == 2
    assert split.videos.bytes == 5 + 4 * 7
    assert list(split.annotations.values()) == [8]


def test_missing_videos_are_counted_and_the_first_ten_named(tmp_path) -> None:
    home = put(tmp_path, [f"{n}.mp4" for n in range(40)])
    for number in range(5, 35):
        (home / "clips" / f"{number}.mp4").unlink()
    report = check("toy", tmp_path, ["test"])
    assert not report.complete
    assert len(report.splits[0].videos.missing) == 30
    text = "\n".join(report_lines(report))
    assert "10 of 40" in text
    assert f"{home}/clips/14.mp4" in text
    assert f"{home}/clips/15.mp4" not in text
    assert "and 20 more" in text
    shown = report.as_json()["splits"]["test"]["videos"]["missing"]
    assert shown["count"] == 30
    assert len(shown["first"]) == 10


def test_a_report_names_registration_licence_tree_and_published_counts(tmp_path) -> None:
    put(tmp_path, ["a.mp4"])
    (tmp_path / "toy" / "clips" / "a.mp4").unlink()
    text = "\n".join(report_lines(check("toy", tmp_path, ["test"])))
    for expected in ("https://toy.example/register", TOY.licence, "clips/<name>.mp4", "published"):
        assert expected in text


def test_without_a_data_root_the_report_says_so_and_how_to_get_the_files() -> None:
    report = check("toy")
    assert not report.complete
    assert [split.source for split in report.splits] == ["missing", "missing"]
    assert any("TEMPEVAL_DATA" in step for step in report.next)
    assert any("https://toy.example" in step for step in report.next)


@pytest.mark.parametrize(
    "damage", ["empty file", "empty folder", "gap", "first frame", "lost link"]
)
def test_damaged_videos_are_named(tmp_path, damage) -> None:
    clips = put(tmp_path) / "clips"
    if damage == "empty file":
        (clips / "a.mp4").write_bytes(b"")
    elif damage == "empty folder":
        for frame in (clips / "b").iterdir():
            frame.unlink()
        (clips / "b" / "notes.txt").write_text("no image")
    elif damage == "lost link":
        (clips / "a.mp4").unlink()
        (clips / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    else:
        (clips / "b" / ("00002.jpg" if damage == "gap" else "00001.jpg")).unlink()
    report = check("toy", tmp_path, ["test"])
    assert not report.complete
    videos = report.splits[0].videos
    empty, missing = [str(clips / "a.mp4")], str(clips / "b")
    assert videos.empty == {"empty file": empty, "empty folder": [missing]}.get(damage, [])
    assert videos.gaps == {"gap": {missing: 2}, "first frame": {missing: 1}}.get(damage, {})
    assert videos.missing == (empty if damage == "lost link" else [])


@pytest.mark.parametrize(
    ("numbers", "gap"),
    [
        ([1, 2, 3], None),
        ([0, 1, 2], None),
        ([1, 2, 4, 5], 3),
        ([2, 3, 4], 1),
        ([0, 20, 40, 60], None),
        ([0, 20, 60, 80], None),
        ([7], 1),
        ([], None),
    ],
)
def test_gaps_are_gaps_of_frames_that_are_numbered_one_by_one(numbers, gap) -> None:
    assert first_gap(f"{number:05d}.jpg" for number in numbers) == gap
    assert first_gap(f"img_{number}.PNG" for number in numbers) == gap


def test_a_video_of_several_questions_is_counted_once(tmp_path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"123")
    found = survey([str(tmp_path / "v.mp4")] * 5)
    assert (found.wanted, found.there, found.bytes) == (1, 1, 3)


def test_videos_of_two_splits_are_counted_once_in_all(tmp_path) -> None:
    put(tmp_path)
    (tmp_path / "toy" / "train.txt").write_text("a.mp4\n")
    report = check("toy", tmp_path)
    assert report.complete
    assert (report.items, report.videos.wanted, report.videos.bytes) == (3, 2, 5 + 4 * 7)
    assert "in all: 3 items, 2 of 2 videos, 33 B" in "\n".join(report_lines(report))


def test_a_whole_split_is_complete_whatever_another_lacks(tmp_path) -> None:
    """And what is missing is not to be got by the command that says so."""
    put(tmp_path, ("a.mp4",))
    report = check("toy", tmp_path, ["test", "train"])
    lines = report_lines(report)
    assert lines[0].endswith("(toy): test complete, train incomplete")
    (problem,) = (line for line in lines if line.strip().startswith("problem"))
    assert "is not under" in problem
    assert "data check" not in problem
    assert report_lines(check("toy", tmp_path, ["test"]))[0].endswith("(toy): complete")


def test_damaged_annotations_are_reported_with_file_and_line(tmp_path) -> None:
    put(tmp_path)
    (tmp_path / "toy" / "test.txt").write_text("a.mp4\n\nb\n")
    report = check("toy", tmp_path, ["test"])
    assert report.splits[0].problem.startswith("damaged")
    assert "test.txt, line 2" in report.splits[0].problem
    assert any("test.txt, line 2" in step for step in report.next)


def test_unknown_names_are_refused(tmp_path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'toy'"):
        check("toi", tmp_path)
    with pytest.raises(BadData, match="no split 'dev'; it has test, train"):
        check("toy", tmp_path, ["dev"])


def test_the_root_may_be_the_benchmarks_own_folder(tmp_path) -> None:
    put(tmp_path)
    assert check("toy", tmp_path / "toy", ["test"]).complete


def test_25k_items_take_less_than_5_seconds_and_1_gib(tmp_path) -> None:
    names = [f"{number}.webm" for number in range(25_000)]
    home = tmp_path / "toy"
    (home / "clips").mkdir(parents=True)
    for name in names:
        os.close(os.open(home / "clips" / name, os.O_CREAT | os.O_WRONLY))
    os.truncate(home / "clips" / names[-1], 9)
    (home / "test.txt").write_text("\n".join(names))
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    videos = check("toy", tmp_path, ["test"]).splits[0].videos
    assert time.process_time() - begun < 5
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 1 << 20  # KiB
    assert (videos.wanted, videos.there, len(videos.empty)) == (25_000, 1, 24_999)


def test_the_list_says_what_is_there(tmp_path) -> None:
    home = put(tmp_path)
    put(tmp_path, ["c.mp4"], "train")
    assert rows(tmp_path)[0].status == "there"
    (home / "clips" / "c.mp4").unlink()
    assert rows(tmp_path)[0].status == "2 of 3 videos"
    (home / "clips" / "a.mp4").unlink()
    (row,) = rows(tmp_path)
    assert row.status == "1 of 3 videos"
    assert (row.items, row.licence) == ({"test": 2, "train": 1}, TOY.licence)
    (home / "clips" / "b").rename(home / "clips" / "gone")
    assert rows(tmp_path)[0].status == "annotations only"
    (home / "train.txt").unlink()
    (home / "test.txt").write_text("\n")
    assert rows(tmp_path)[0].status == "damaged: test"
    assert [items_text(items) for items in ({}, {"a": 2}, {"a": 2, "b": 1})] == [
        "-",
        "2",
        "a 2, b 1",
    ]
    assert items_text(dict.fromkeys("abcde", 200)) == "1000 (5 splits)"
    assert rows(tmp_path / "nowhere")[0].items == {"test": 3}


def test_questions_of_two_splits_are_counted_once(tmp_path, monkeypatch) -> None:
    """As of EgoSchema, whose subset is a part of the full set."""
    register(monkeypatch, replace(TOY, read=lambda root, split: TOY.read(root, "test")))
    put(tmp_path)
    (tmp_path / "toy" / "train.txt").write_text("a.mp4\n")
    report = check("toy", tmp_path)
    assert [split.items for split in report.splits] == [2, 2]
    assert report.items == 2


def test_what_is_not_known_is_not_made_up(monkeypatch) -> None:
    counts = {"test": Counts(4, None, "recalled", checked=False), "train": Counts(2, None, "paper")}
    register(monkeypatch, replace(TOY, splits=counts))
    line = benchmark_table().splitlines()[2]
    assert "| test 4 (not checked), train 2 | - | - |" in line
    register(monkeypatch, replace(TOY, splits={name: Counts(200, None, "x") for name in "abcde"}))
    assert "| 1,000 | - | - |" in benchmark_table().splitlines()[2]


@pytest.mark.parametrize(
    ("counts", "items"),
    [
        (MVBENCH.splits["action_sequence"], 200),
        (MUSIC_AVQA.splits["train"], 32_087),
        (AVQA.splits["val"], 16_910),
    ],
)
def test_videos_that_nobody_counted_have_no_number(counts, items) -> None:
    assert (counts.items, counts.videos) == (items, None)


def test_the_table_has_published_counts_and_the_registration_page() -> None:
    table = benchmark_table()
    line = table.splitlines()[2]
    assert "| test 3, train - | test 2, train - | test 1.5, train - |" in line
    assert "<https://toy.example/register>" in line
    assert "`tempeval_toy`" in line


def test_commands_give_exit_codes_and_json(tmp_path) -> None:
    put(tmp_path)
    run = CliRunner().invoke
    arguments = ["data", "check", "toy", "--data-root", str(tmp_path), "--split", "test"]
    done = run(app, arguments)
    assert done.exit_code == 0
    assert "complete" in done.stdout
    (tmp_path / "toy" / "clips" / "a.mp4").unlink()
    done = run(app, [*arguments, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["complete"] is False
    assert found["splits"]["test"]["items"] == 2
    done = run(app, ["data", "list", "--data-root", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["toy"]["status"] == "1 of 2 videos, without train"


# Archives


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_was_packed_comes_out_and_the_archive_stays(tmp_path, kind) -> None:
    members = {f"clips/{name}": data for name, data in CLIPS.items()} | {"empty": b""}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        make_zip(path, members)
    else:
        make_tar(path, members, f"w:{kind[4:]}")
    before = path.read_bytes()
    steps = []
    done = unpacked(path, tmp_path / "out", progress=lambda *now: steps.append(now))
    assert contents(tmp_path / "out") == members
    assert (done.written, done.kept) == (len(members), 0)
    assert done.bytes == sum(map(len, members.values()))
    assert path.read_bytes() == before
    assert steps == sorted(steps)
    assert steps[-1] == (len(before), len(before))
    again = unpacked(path, tmp_path / "out")
    assert (again.written, again.kept, again.bytes) == (0, len(members), done.bytes)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_parts_are_read_as_one(tmp_path, kind) -> None:
    whole = tmp_path / "whole"
    make_zip(whole, CLIPS) if kind == "zip" else make_tar(whole, CLIPS, f"w:{kind[4:]}")
    split_file(whole, tmp_path / "toy", "toy-v1-", 7)
    done = prepare("toy", tmp_path)
    assert not done.failures
    assert contents(tmp_path / "toy" / "clips") == CLIPS
    assert len(matching(tmp_path / "toy", "toy-v1-??")) == 7
    assert [path.name for path in (tmp_path / "toy").iterdir() if path.name == "whole"] == []


def test_parts_by_letters_and_whole_archives_are_told_apart(tmp_path) -> None:
    names = ["x.tar.gz.aa", "x.tar.gz.ab", "y-00", "y-01", "z_1.tar", "z_2.tar", "k.zip"]
    groups = archive_files([tmp_path / name for name in sorted(names)])
    assert [[path.name for path in group.parts] for group in groups] == [
        ["k.zip"],
        ["x.tar.gz.aa", "x.tar.gz.ab"],
        ["y-00", "y-01"],
        ["z_1.tar"],
        ["z_2.tar"],
    ]


@pytest.mark.parametrize(("gone", "named"), [(0, "before"), (3, "between"), (6, "cut off")])
def test_a_missing_part_is_named(tmp_path, gone, named) -> None:
    split_file(make_tar(tmp_path / "whole", CLIPS, "w:gz"), tmp_path / "toy", "toy-v1-", 7)
    (tmp_path / "toy" / f"toy-v1-{gone:02d}").unlink()
    if gone == 0:  # parts may be numbered from 1 on, not from 2
        (tmp_path / "toy" / "toy-v1-01").unlink()
    (failure,) = prepare("toy", tmp_path).failures
    assert named in failure
    assert "toy-v1-0" in failure


def test_joined_files_can_be_read_from_any_place(tmp_path) -> None:
    pieces = [os.urandom(size) for size in (10, 0, 1, 25)]
    paths = []
    for number, piece in enumerate(pieces):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(piece)
    whole = b"".join(pieces)
    with Joined(paths) as joined, io.BufferedReader(joined, 4) as stream:
        assert stream.read() == whole
        for place in (0, 9, 10, 11, 30, 36):
            stream.seek(place)
            assert stream.read(7) == whole[place : place + 7]
        assert stream.seek(-3, io.SEEK_END) == 33
        assert stream.read() == whole[-3:]


def test_a_tape_goes_forwards_and_a_little_back() -> None:
    data = os.urandom(20_000)
    tape = Tape(io.BytesIO(data))
    assert tape.read(600) == data[:600]
    tape.seek(100)
    assert tape.read(900) == data[100:1000]
    tape.seek(15_000)
    assert tape.read(10) == data[15_000:15_010]
    tape.seek(14_999)
    assert tape.read() == data[14_999:]
    with pytest.raises(io.UnsupportedOperation):
        tape.seek(10)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("name", ["../out.mp4", "/out.mp4", "a/../../out.mp4", "C:/out", "a\\b"])
def test_nothing_is_written_outside(tmp_path, kind, name) -> None:
    members = {"in.mp4": b"inside", name: b"outside"}
    path = tmp_path / f"bad.{kind}"
    make_zip(path, members) if kind == "zip" else make_tar(path, members, f"w:{kind[4:]}")
    with pytest.raises(BadArchive, match="bad"):
        unpacked(path, tmp_path / "deep" / "out")
    left = set(contents(tmp_path)) - {path.name, "deep/state.jsonl"}
    assert left <= {"deep/out/in.mp4"}


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        link("a", "/etc/passwd"),
        link("a", "../../secret"),
        link("a", "../secret", tarfile.LNKTYPE),
        link("a", "nothing"),
        link("a", "b"),
        link("pipe", "", tarfile.FIFOTYPE),
        link("dev", "", tarfile.CHRTYPE),
    ],
)
def test_links_out_of_an_archive_and_devices_are_refused(tmp_path, info) -> None:
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info)
        archive.addfile(link("b", "a"))
    with pytest.raises(BadArchive):
        unpacked(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_link_to_a_folder_becomes_a_copy_of_it(tmp_path) -> None:
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(link("again/twice", "../alias"))
        archive.addfile(link("alias", "clips"))
        archive.addfile(link("clips/self", "."))
        archive.addfile(link("clips/b.mp4", "../a.mp4"))
        for name in ("a.mp4", "clips/deep/c.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    done = unpacked(path, tmp_path / "out")
    folders = ("clips", "alias", "again/twice")
    copies = {f"{folder}/{name}" for folder in folders for name in ("b.mp4", "deep/c.mp4")}
    assert set(contents(tmp_path / "out")) == copies | {"a.mp4"}
    assert not any(found.is_symlink() for found in (tmp_path / "out").rglob("*"))
    assert done.written == 7
    again = unpacked(path, tmp_path / "out")
    assert (again.written, again.kept) == (0, 7)


def test_links_cannot_multiply_an_archive_beyond_the_limits(tmp_path, monkeypatch) -> None:
    path = tmp_path / "bomb.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("0/x")
        info.size = 1000
        archive.addfile(info, io.BytesIO(bytes(1000)))
        for level in range(1, 30):
            for half in "ab":
                archive.addfile(link(f"{level}/{half}", f"../{level - 1}"))
    monkeypatch.setattr(unpack_module, "LIMITS", Limits(1 << 40, 500))
    with pytest.raises(BadArchive, match="500 members"):
        unpacked(path, tmp_path / "out")
    assert len(contents(tmp_path / "out")) <= 500


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", [".tempeval/lock", "a/.tempeval/b", ".TEMPEVAL/x.jsonl"])
def test_nothing_is_written_among_tempevals_own_records(tmp_path, kind, name) -> None:
    path = tmp_path / f"bad.{kind}"
    (make_zip if kind == "zip" else make_tar)(path, {name: b"1"})
    with pytest.raises(BadArchive, match=r"\.tempeval"):
        unpacked(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_of_any_length_and_names_of_unfinished_files_come_out(tmp_path, kind) -> None:
    """A file system takes 255 bytes; another program may have left files of its own."""
    members = {"n" * 251 + ".mp4": b"1", "x.mp4": b"2", ".x.mp4.partial": b"3", "é" * 127: b"4"}
    path = tmp_path / f"a.{kind}"
    (make_zip if kind == "zip" else make_tar)(path, members)
    unpacked(path, tmp_path / "out")
    assert contents(tmp_path / "out") == members
    (make_zip if kind == "zip" else make_tar)(path, {f"a/b{PARTIAL}": b"1"})
    with pytest.raises(BadArchive, match="while tempeval writes them"):
        unpacked(path, tmp_path / "other")


@pytest.mark.parametrize("kind", ["L", "K", "x", "g"])
def test_a_header_of_a_tar_takes_bounded_memory(tmp_path, kind) -> None:
    """GNU's long names and links, and POSIX's headers of a member and of all: 1 GB in 1 MB."""
    path = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind.encode(), 1 << 30
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(4):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BadArchive, match="header of more than 1048576 bytes"):
            unpacked(path, tmp_path / "out")
        with pytest.raises(BadArchive, match="header of more than 1048576 bytes"):
            extracted(path, tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_file_that_was_there_before_is_not_overwritten(tmp_path, kind) -> None:
    home = put(tmp_path, ["a.mp4"])
    members = {"clips/0.mp4": b"0", "clips/a.mp4": b"another one", "test.txt": b"z.mp4\n"}
    archive = home / f"clips.{kind}"
    if kind == "zip":
        make_zip(archive, members)
    else:
        make_tar(archive, members, f"w:{kind[4:]}")
    with pytest.raises(CannotWrite, match=r"clips/a\.mp4 .*did not write"):
        unpacked(archive, home)
    assert (home / "clips" / "a.mp4").read_bytes() == b"12345"
    assert (home / "test.txt").read_bytes() == b"a.mp4\n"
    assert (home / "clips" / "0.mp4").read_bytes() == b"0"
    (home / "clips" / "a.mp4").unlink()
    with pytest.raises(CannotWrite, match=r"test\.txt"):
        unpacked(archive, home)
    assert (home / "clips" / "a.mp4").read_bytes() == b"another one"
    assert not list(home.rglob("*partial"))


def test_what_was_unpacked_by_hand_is_taken_over(tmp_path) -> None:
    path = make_tar(tmp_path / "a.tar", CLIPS)
    (tmp_path / "out").mkdir()
    for name, data in CLIPS.items():
        (tmp_path / "out" / name).write_bytes(data)
    unpacked(path, tmp_path / "out")
    assert unpacked(path, tmp_path / "out").kept == 6


def test_a_file_of_an_earlier_archive_is_replaced(tmp_path) -> None:
    """As of archives that share a file, and of one that was unpacked in an older edition."""
    unpacked(make_tar(tmp_path / "a.tar", {"readme": b"of a", "1": b"1"}), tmp_path / "out")
    second = make_tar(tmp_path / "b.tar", {"readme": b"of b, longer", "2": b"2"})
    (files,) = archive_files([second])
    unpack(files, tmp_path / "out", tmp_path / "b.jsonl")
    assert contents(tmp_path / "out") == {"readme": b"of b, longer", "1": b"1", "2": b"2"}


def test_prepare_names_the_file_and_goes_on_with_other_archives(tmp_path) -> None:
    home = put(tmp_path, ["a.mp4"])
    (home / "more").mkdir()
    make_tar(home / "more" / "1.tar", {"a.mp4": b"another one"})
    make_tar(home / "more" / "2.tar", {"c.mp4": b"2"})
    done = prepare("toy", tmp_path)
    (failure,) = done.failures
    assert str(home / "clips" / "a.mp4") in failure
    assert (home / "clips" / "c.mp4").read_bytes() == b"2"


@pytest.mark.parametrize("form", ["zips of the parts", "parts that are called zip"])
@pytest.mark.parametrize("source", [False, True])
def test_parts_as_qualcomm_distributes_them(tmp_path, monkeypatch, form, source) -> None:
    archives = (Archive("toy-labels.zip", annotations=True), Archive("toy-v1-??", zipped=True))
    register(monkeypatch, replace(TOY, archives=archives))
    make_tar(tmp_path / "whole", {f"clips/{name}": data for name, data in CLIPS.items()}, "w:gz")
    split_file(tmp_path / "whole", tmp_path / "parts", "toy-v1-", 12)
    downloads = tmp_path / "downloads" if source else tmp_path / "data" / "toy"
    downloads.mkdir(parents=True)
    for part in (tmp_path / "parts").iterdir():
        if form == "zips of the parts":
            packed = {part.name: part.read_bytes(), f"{part.name}.md5": b"digest"}
            make_zip(downloads / f"{part.name}.zip", packed)
        else:
            (downloads / f"{part.name}.zip").write_bytes(part.read_bytes())
    names = "".join(f"{name}\n" for name in CLIPS).encode()
    make_zip(downloads / "toy-labels.zip", {"labels/test.txt": names})
    for _ in range(2):
        done = prepare("toy", tmp_path / "data", downloads if source else None)
        assert (done.failures, done.absent) == ([], [])
        assert contents(tmp_path / "data" / "toy" / "clips") == CLIPS
    assert check("toy", tmp_path / "data", ["test"]).complete


def test_a_missing_part_that_is_called_zip_is_named(tmp_path, monkeypatch) -> None:
    register(monkeypatch, replace(TOY, archives=(Archive("toy-v1-??", zipped=True),)))
    split_file(make_tar(tmp_path / "whole", CLIPS, "w:gz"), tmp_path / "toy", "toy-v1-", 7)
    for path in list((tmp_path / "toy").iterdir()):
        path.rename(f"{path}.zip")
    (tmp_path / "toy" / "toy-v1-03.zip").unlink()
    (failure,) = prepare("toy", tmp_path).failures
    assert "between toy-v1-02.zip and toy-v1-04.zip" in failure


def test_archives_of_annotations_are_not_missed_where_the_annotations_are(
    tmp_path, monkeypatch
) -> None:
    labels, videos = Archive("toy-labels.zip", annotations=True), Archive("toy-v1-??")
    register(monkeypatch, replace(TOY, archives=(labels, videos)))
    assert prepare("toy", tmp_path).absent == ["toy-labels.zip", "toy-v1-??"]
    put(tmp_path, ["a.mp4"])
    assert prepare("toy", tmp_path).absent == ["toy-v1-??"]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (JESTER, ["20bn-jester-download-package-labels.zip", "20bn-jester-v1-22.zip"]),
        (JESTER, ["20bn-jester-v1-00"]),
        (SSV2, ["20bn-something-something-download-package-labels.zip"]),
        (SSV2, ["20bn-something-something-v2-00.zip", "20bn-something-something-v2-19"]),
    ],
)
def test_archives_of_qualcomm_are_known_by_their_names(tmp_path, chosen, names) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = {
        path.name for a in chosen.archives for p in a.patterns for path in matching(tmp_path, p)
    }
    assert found == set(names)


def test_links_inside_an_archive_become_copies(tmp_path) -> None:
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(link("to/second", "first"))
        archive.addfile(link("to/first", "../a.mp4"))
        info = tarfile.TarInfo("a.mp4")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))
        archive.addfile(link("hard", "a.mp4", tarfile.LNKTYPE))
    unpacked(path, tmp_path / "out")
    assert set(contents(tmp_path / "out").values()) == {b"data"}
    assert not any(found.is_symlink() for found in (tmp_path / "out").rglob("*"))
    assert len(contents(tmp_path / "out")) == 4


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("cut", [0.0, 0.4, 0.98])
def test_a_cut_archive_is_named_and_what_came_out_is_whole(tmp_path, kind, cut) -> None:
    path = tmp_path / f"cut.{kind}"
    make_zip(path, CLIPS) if kind == "zip" else make_tar(path, CLIPS, f"w:{kind[4:]}")
    data = path.read_bytes()
    if kind == "tar":
        data = data.rstrip(b"\0")
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(BadArchive, match=f"{path}.*again"):
        unpacked(path, tmp_path / "out")
    out = contents(tmp_path / "out")
    assert out == {name: CLIPS[name] for name in out}
    if kind != "zip" and cut == 0.4:
        assert 0 < len(out) < len(CLIPS)


def test_a_changed_byte_is_noticed_by_the_checksum(tmp_path) -> None:
    for kind in ("zip", "tar.gz"):
        path = tmp_path / f"bad.{kind}"
        make_zip(path, CLIPS) if kind == "zip" else make_tar(path, CLIPS, "w:gz")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(BadArchive, match="damaged"):
            unpacked(path, tmp_path / kind)
    out = contents(tmp_path / "zip")
    assert 0 < len(out) < len(CLIPS)
    assert out == {name: CLIPS[name] for name in out}


def test_a_second_call_goes_on_and_rewrites_nothing(tmp_path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", CLIPS, "w:gz")

    def stop(done: int, total: int) -> None:
        if len(contents(tmp_path / "out")) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpacked(path, tmp_path / "out", progress=stop)
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert sorted(first) == ["0.mp4", "1.mp4", "2.mp4"]
    done = unpacked(path, tmp_path / "out")
    assert (done.kept, done.written) == (3, 3)
    assert contents(tmp_path / "out") == CLIPS
    for name, moment in first.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == moment


def test_lost_and_shortened_files_are_unpacked_again(tmp_path) -> None:
    path = make_tar(tmp_path / "a.tar", CLIPS)
    unpacked(path, tmp_path / "out")
    (tmp_path / "out" / "1.mp4").unlink()
    (tmp_path / "out" / "4.mp4").write_bytes(b"short")
    done = unpacked(path, tmp_path / "out")
    assert (done.kept, done.written) == (4, 2)
    assert contents(tmp_path / "out") == CLIPS
    assert unpacked(path, tmp_path / "out").kept == 6


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_state_file_that_was_cut_off_is_trusted_up_to_there(tmp_path, keep) -> None:
    path = make_tar(tmp_path / "a.tar", CLIPS)
    unpacked(path, tmp_path / "out")
    state = tmp_path / "state.jsonl"
    lines = state.read_bytes().splitlines(keepends=True)
    state.write_bytes(b"".join(lines[: keep + 1]) + lines[keep + 1][:-4])
    assert unpacked(path, tmp_path / "out").kept == keep
    assert state.read_bytes() == b"".join(lines)


def test_another_archive_of_that_name_begins_anew(tmp_path) -> None:
    path = make_tar(tmp_path / "a.tar", CLIPS)
    unpacked(path, tmp_path / "out")
    changed = {name: bytes(len(data)) for name, data in CLIPS.items()}
    make_tar(path, changed)
    os.utime(path, ns=(0, 0))
    assert unpacked(path, tmp_path / "out").written == 6
    assert contents(tmp_path / "out") == changed


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch) -> None:
    path = make_zip(tmp_path / "a.zip", CLIPS)
    monkeypatch.setattr(
        unpack_module, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=9000))
    )
    with pytest.raises(CannotWrite, match=r"a\.zip unpacks to .* GB more"):
        unpacked(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_disk_that_fills_up_is_named_and_the_next_call_goes_on(tmp_path, monkeypatch) -> None:
    path = make_tar(tmp_path / "a.tar", CLIPS)
    free = iter([10**9, 10**9, 10**9, 100])
    with monkeypatch.context() as patch:
        usage = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=next(free)))
        patch.setattr(unpack_module, "shutil", usage)
        with pytest.raises(CannotWrite, match="no room left"):
            unpacked(path, tmp_path / "out")
    assert unpacked(path, tmp_path / "out").kept == 2


def test_more_than_the_limits_is_refused(tmp_path, monkeypatch) -> None:
    path = make_tar(tmp_path / "a.tar.gz", {"zeros": bytes(300_000), "more": b"x"}, "w:gz")
    monkeypatch.setattr(archive_members, "_SMALL_BYTES", 1000)
    with pytest.raises(BadArchive, match="more than"):
        unpacked(path, tmp_path / "out")
    monkeypatch.setattr(unpack_module, "LIMITS", Limits(1 << 40, 1))
    with pytest.raises(BadArchive, match="1 members"):
        unpacked(make_tar(tmp_path / "b.tar", CLIPS), tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    path = make_tar(tmp_path / "a.tar", {"a/b.mp4": b"1"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("a file where a folder is wanted")
    with pytest.raises(CannotWrite, match=r"a/b\.mp4"):
        unpacked(path, tmp_path / "out")


def test_leftovers_of_macos_are_left_out(tmp_path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.mp4": b"1", "__MACOSX/._a.mp4": b"2", ".DS_Store": b""})
    unpacked(path, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"a.mp4"}


def test_prepare_takes_archives_from_elsewhere_and_in_their_order(tmp_path) -> None:
    downloads = tmp_path / "downloads"
    (downloads / "more").mkdir(parents=True)
    make_tar(tmp_path / "whole", {"a.mp4": b"1"}, "w:gz")
    split_file(tmp_path / "whole", tmp_path / "parts", "toy-v1-", 2)
    pieces = {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()}
    # Qualcomm wraps the parts in a zip: they come out of one archive and are parts of the next.
    make_zip(downloads / "toy-labels.zip", {"test.txt": b"a.mp4\nb.mp4\n", **pieces})
    make_tar(downloads / "more" / "1.tar", {"b.mp4": b"2"})
    done = prepare("toy", tmp_path / "data", downloads)
    assert not done.failures
    assert contents(tmp_path / "data" / "toy" / "clips") == {"a.mp4": b"1", "b.mp4": b"2"}
    assert check("toy", tmp_path / "data", ["test"]).complete
    assert len(contents(downloads)) == 2


def test_archives_of_a_benchmark_that_names_none_are_unpacked_where_they_lie(
    tmp_path, monkeypatch
) -> None:
    register(monkeypatch, replace(TOY, archives=()))
    home = put(tmp_path, ["a.mp4"])
    (home / "videos").mkdir()
    make_zip(home / "clips.zip", {"clips/b.mp4": b"1"})
    make_tar(home / "videos" / "more.tar.gz", {"c.mp4": b"2"}, "w:gz")
    make_zip(tmp_path / "another benchmark's.zip", {"d.mp4": b"3"})
    done = prepare("toy", tmp_path)
    assert (done.absent, done.failures, len(done.unpacked)) == ([], [], 2)
    assert (home / "clips" / "b.mp4").read_bytes() == b"1"
    assert (home / "videos" / "c.mp4").read_bytes() == b"2"


def test_clips_that_mvbench_added_later_are_found(tmp_path, monkeypatch) -> None:
    """As OpenGVLab/MVBench has them on its hub: video/data0613.zip with data0613/star, .../clevrer.

    The other clips of the same folders lie where they have always been.
    """
    register(monkeypatch, MVBENCH)
    home = tmp_path / "mvbench"
    (home / "json").mkdir(parents=True)
    item = {"question": "Q?", "candidates": ["x", "y"], "answer": "x"}
    items = [{**item, "video": name} for name in ("video_1.mp4", "video_2.mp4", "video_3.mp4")]
    (home / "json" / "moving_count.json").write_text(json.dumps(items))
    folder = "clevrer/video_validation"
    (home / "video").mkdir()
    make_zip(home / "video" / "clevrer.zip", {f"{folder}/video_1.mp4": b"1"})
    make_zip(home / "video" / "data0613.zip", {f"data0613/{folder}/video_2.mp4": b"2"})
    assert prepare("mvbench", tmp_path).failures == []
    docs = load_docs({"benchmark": "mvbench", "split": "moving_count"}, tmp_path)
    assert [doc["video"] for doc in docs] == [
        str(home / "video" / folder / "video_1.mp4"),
        str(home / "video" / "data0613" / folder / "video_2.mp4"),
        str(home / "video" / folder / "video_3.mp4"),
    ]
    assert [doc["video_id"] for doc in docs][1] == f"mvbench/{folder}/video_2.mp4"


def test_one_damaged_archive_does_not_keep_the_others(tmp_path) -> None:
    home = put(tmp_path, ["a.mp4"])
    (home / "more").mkdir()
    (home / "more" / "1.tar").write_bytes(b"nonsense" * 100)
    make_tar(home / "more" / "2.tar", {"c.mp4": b"2"})
    done = prepare("toy", tmp_path)
    assert len(done.failures) == 1
    assert str(home / "more" / "1.tar") in done.failures[0]
    assert (home / "clips" / "c.mp4").read_bytes() == b"2"
    assert done.absent == ["toy-labels.zip", "toy-v1-??"]


def test_check_points_to_archives_that_wait(tmp_path) -> None:
    home = put(tmp_path, ["a.mp4"])
    (home / "clips" / "a.mp4").unlink()
    (home / "more").mkdir()
    make_tar(home / "more" / "1.tar", {"z.mp4": b"2"})
    assert "1.tar" in check("toy", tmp_path, ["test"]).next[0]
    prepare("toy", tmp_path)
    assert not any("1.tar" in step for step in check("toy", tmp_path, ["test"]).next)


def test_prepare_needs_a_place(tmp_path) -> None:
    with pytest.raises(MissingData, match="TEMPEVAL_DATA"):
        prepare("toy")
    with pytest.raises(MissingData, match="no folder"):
        prepare("toy", tmp_path, tmp_path / "nowhere")


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_at_once_are_refused(tmp_path) -> None:
    (tmp_path / "toy" / ".tempeval").mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "toy" / ".tempeval" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CannotWrite, match="another process"):
            prepare("toy", tmp_path)
        other.communicate()


def test_prepare_command_ends_with_a_check(tmp_path) -> None:
    put(tmp_path, ["a.mp4"])
    put(tmp_path, ["a.mp4"], "train")
    done = CliRunner().invoke(app, ["data", "prepare", "toy", "--data-root", str(tmp_path)])
    assert done.exit_code == 0
    assert "Toy Clips (toy): complete" in done.stdout


def test_a_benchmark_whose_videos_fit_elsewhere_can_be_linked(tmp_path, monkeypatch) -> None:
    big = tmp_path / "big disk"
    big.mkdir()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "clips").symlink_to(big)
    register(monkeypatch, replace(TOY, archives=TOY.archives[2:]))
    (tmp_path / "toy" / "more").mkdir()
    make_tar(tmp_path / "toy" / "more" / "1.tar", CLIPS)
    prepare("toy", tmp_path)
    assert contents(big) == CLIPS


def test_bytes_are_shown_in_decimal_units() -> None:
    shown = [human_bytes(count) for count in (0, 999, 1000, 25_300_000_000)]
    assert shown == ["0 B", "999 B", "1.0 kB", "25.3 GB"]
