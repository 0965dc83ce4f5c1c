"""The journal: what is appended is there after anything; what is damaged is computed again."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempeval.engine.answer import Answer, Score
from tempeval.engine.journal import FORMAT, Journal, JournalError, forget_left_over
from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.store import Keys
from tempeval.engine.usage import Usage
from tempeval.errors import RunFailed
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.run.ranks import Ranks


def outcome(text="left", **usage):
    return Outcome(Answer(text, (1, 2), 64), Usage(frames=8, flags=("truncated",), **usage))


def test_round_trip(tmp_path):
    scores = Scores.of([Score(-0.1, 3, True, 12), Score(-1e-300, 1, False, 4)])
    scored = Outcome(scores, Usage(visual_tokens=36, prefill_ms=1.5))
    batches = [{"a": outcome("line\nbreak \u2603"), "b": scored}, {"c": outcome("")}]
    with Journal(tmp_path) as journal:
        for batch in batches:
            journal.append(batch)
    with Journal(tmp_path) as journal:
        assert len(journal) == 3
        for batch in batches:
            assert all(journal.get(key) == value for key, value in batch.items())
        assert journal.get("d") is None


def sealed(text: str) -> bytes:
    """A line with a sound checksum, whatever it says."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


GOOD = {
    "answer": {"text": "left", "token_ids": [1], "tail_tokens": 8},
    "usage": Usage(frames=8).to_dict(),
}


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        7,
        {"v": FORMAT},
        {"v": FORMAT - 1, "batch": {"odd": GOOD}},
        {"v": FORMAT, "batch": None},
        {"v": FORMAT, "batch": [GOOD]},
        {"v": FORMAT, "batch": {}, "forget": 3},
        {"v": FORMAT, "batch": {}, "forget": [["first"]]},
        {"v": FORMAT, "batch": {"odd": None}},
        {"v": FORMAT, "batch": {"odd": {}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": None}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": "left"}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": {"text": 3}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": GOOD["answer"] | {"text": None}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": GOOD["answer"] | {"token_ids": 1}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"answer": {"log_likelihood": -1.0}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"usage": None}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"usage": GOOD["usage"] | {"frames": "8"}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"usage": GOOD["usage"] | {"flags": None}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"usage": GOOD["usage"] | {"error": 1}}}},
        {"v": FORMAT, "batch": {"odd": GOOD | {"usage": GOOD["usage"] | {"new": 1}}}},
    ],
)
def test_a_sound_line_of_another_shape_counts_as_damaged(tmp_path, record):
    with Journal(tmp_path) as journal:
        journal.append({"first": outcome()})
        path = journal.path
    with path.open("ab") as file:
        file.write(sealed(json.dumps(record)))
    with Journal(tmp_path) as journal:
        assert journal.damaged == 1
        assert "first" in journal
        assert len(journal) == 1
        journal.append({"last": outcome()})
    with Journal(tmp_path) as journal:
        assert len(journal) == 2


def test_the_line_that_those_differ_from_is_read(tmp_path):
    path = tmp_path / "rank0.jsonl"
    path.write_bytes(sealed(json.dumps({"v": FORMAT, "batch": {"odd": GOOD}})))
    with Journal(tmp_path) as journal:
        assert (journal.damaged, len(journal)) == (0, 1)


def test_a_journal_with_windows_line_ends_is_read(tmp_path):
    with Journal(tmp_path) as journal:
        for key in "abc":
            journal.append({key: outcome(key)})
        path = journal.path
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with Journal(tmp_path) as journal:
        assert journal.damaged == 0
        assert [journal.get(key) for key in "abc"] == [outcome(key) for key in "abc"]
        journal.forget(["a"])
        journal.append({"d": outcome("d")})
    with Journal(tmp_path) as journal:
        assert (journal.damaged, [key in journal for key in "abcd"]) == (0, [False, *[True] * 3])


@pytest.mark.parametrize(
    "name",
    [
        "rank0.sync-conflict-20260101.jsonl",
        "rank0 (copy).jsonl",
        "rank.jsonl",
        "rank0.jsonl.bak",
        "rank-1.jsonl",
    ],
)
def test_copies_that_other_programs_lay_beside_a_journal_are_left_alone(tmp_path, name):
    with Journal(tmp_path) as journal:
        journal.append({"a": outcome()})
    copy = tmp_path / name
    copy.write_bytes(b"anything")
    with Journal(tmp_path) as journal:
        assert "a" in journal
        journal.forget(["a"])
        forget_left_over(tmp_path, 1, ["a"])
        journal.reload()
        assert "a" not in journal
    assert copy.read_bytes() == b"anything"


def test_answers_of_this_run_are_told_from_earlier_ones(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append({"old": outcome()})
    with Journal(tmp_path) as zero, Journal(tmp_path, rank=1) as one:
        zero.append({"mine": outcome()})
        one.append({"other": outcome()})
        zero.reload()
        assert [zero.is_new(key) for key in ("old", "mine", "other", "none")] == [
            False,
            True,
            True,
            False,
        ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch, number):
    def flock(_file, _how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(JournalError, match=r"cannot lock .* local disk") as raised:
        Journal(tmp_path)
    assert os.strerror(number) in str(raised.value)
    assert "another process" not in str(raised.value)


def test_failures_are_tried_again_by_a_later_run(tmp_path):
    failed = Outcome(None, Usage(error="cannot decode"))
    with Journal(tmp_path) as journal:
        journal.append({"a": failed, "b": outcome()})
        assert journal.get("a") == failed
    with Journal(tmp_path) as journal:
        assert "a" not in journal
        assert "b" in journal


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 2000), batches=st.integers(1, 4))
def test_a_cut_at_any_byte_loses_only_what_it_cuts(tmp_path_factory, cut, batches):
    folder = tmp_path_factory.mktemp("journal")
    ends = []
    with Journal(folder) as journal:
        for number in range(batches):
            journal.append({f"{number}{c}": outcome(str(number)) for c in "ab"})
            ends.append(journal.path.stat().st_size)
        path = journal.path
    cut = min(cut, ends[-1])
    os.truncate(path, cut)
    whole = sum(end <= cut for end in ends)
    with Journal(folder) as journal:
        assert len(journal) == 2 * whole
        journal.append({"new": outcome("new")})
    with Journal(folder) as journal:
        assert len(journal) == 2 * whole + 1
        assert journal.damaged == 0


def test_a_damaged_line_in_the_middle_is_dropped_alone(tmp_path):
    with Journal(tmp_path) as journal:
        for key in "abc":
            journal.append({key: outcome(key)})
        path = journal.path
    content = bytearray(path.read_bytes())
    content[content.index(b"\n") + 40] ^= 1
    path.write_bytes(content)
    with Journal(tmp_path) as journal:
        assert journal.damaged == 1
        assert [key in journal for key in "abc"] == [True, False, True]


def test_ranks_write_their_own_files_and_read_all(tmp_path):
    with Journal(tmp_path, rank=0) as zero, Journal(tmp_path, rank=1) as one:
        zero.append({"a": outcome("a")})
        one.append({"b": outcome("b")})
        assert "b" not in zero
        zero.reload()
        assert "b" in zero


def test_ranks_learn_of_the_failures_of_this_run_only(tmp_path):
    failed = Outcome(None, Usage(error="cannot decode"))
    with Journal(tmp_path, rank=1) as earlier:
        earlier.append({"old": failed, "both": failed, "good": outcome()})
        path = earlier.path
    with path.open("ab") as file:
        file.write(b"torn " * 200)  # cut off when its rank opens it, so what follows moves
    with Journal(tmp_path, rank=0) as zero, Journal(tmp_path, rank=1) as one:
        one.append({"both": failed, "new": failed})
        one.append({"late": failed})
        one.append({"late": outcome()})
        zero.append({"mine": failed})
        zero.reload()
        assert "old" not in zero
        assert zero.get("both") == zero.get("new") == zero.get("mine") == failed
        assert zero.get("good") == zero.get("late") == outcome()


def test_what_is_forgotten_stays_forgotten_and_nothing_else_does(tmp_path):
    with Journal(tmp_path, rank=0) as zero, Journal(tmp_path, rank=1) as one:
        zero.append({"a": outcome("old"), "b": outcome()})
        one.append({"c": outcome("old"), "d": outcome()})
    with Journal(tmp_path, rank=0) as zero, Journal(tmp_path, rank=1) as one:
        for journal in (zero, one):
            journal.forget({"a", "c", "never seen"})
            assert [key in journal for key in "abcd"] == [False, True, False, True]
        zero.append({"a": outcome("new")})
        size = one.path.stat().st_size
        one.forget({"c"})
        assert one.path.stat().st_size == size, "nothing left to say"
        zero.reload()
        assert zero.get("a") == outcome("new")
        assert "c" not in zero
    with Journal(tmp_path, rank=0) as later:
        assert [key in later for key in "abcd"] == [True, True, False, True]
        assert later.get("a") == outcome("new")


def test_files_of_ranks_that_are_no_more_forget_too(tmp_path):
    with Journal(tmp_path, rank=3) as journal:
        journal.append({"a": outcome(), "b": outcome()})
        with pytest.raises(JournalError, match="another process"):
            forget_left_over(tmp_path, 2, {"a"})
    forget_left_over(tmp_path, 2, {"a"})
    with Journal(tmp_path) as journal:
        assert [key in journal for key in "ab"] == [False, True]


def test_two_writers_of_one_file_are_refused(tmp_path):
    with Journal(tmp_path), pytest.raises(JournalError, match="another process"):
        Journal(tmp_path)


def test_a_reader_that_looks_for_the_lock_is_no_writer(tmp_path):
    """Ranks find out who lives by trying the lock, which is theirs for that instant."""
    with Journal(tmp_path) as journal:
        path = journal.path
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with Journal(tmp_path) as journal:
            journal.append({"a": outcome()})


def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    with Journal(tmp_path) as journal:
        journal.append({"a": outcome()})
        size = journal.path.stat().st_size
        real = journal._file

        class FullDisk:
            def __getattr__(self, name):
                return getattr(real, name)

            def write(self, line):
                real.write(line[: len(line) // 2])  # half of it fits
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(journal, "_file", FullDisk())
        with pytest.raises(JournalError, match=r"No space left on device.*run the same command"):
            journal.append({"b": outcome()})
        assert journal.path.stat().st_size == size
        assert "b" not in journal
        monkeypatch.setattr(journal, "_file", real)
        journal.append({"b": outcome()})
    with Journal(tmp_path) as journal:
        assert "b" in journal


def test_an_unusable_folder_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(JournalError, match="choose another folder"):
        Journal(blocker / "journal")


WRITER = """
import sys
from pathlib import Path
from tempeval.engine.answer import Answer
from tempeval.engine.journal import Journal
from tempeval.engine.usage import Usage
from tempeval.engine.question import Outcome
journal = Journal(Path(sys.argv[1]))
for number in range(10**6):
    journal.append({str(number): Outcome(Answer("x" * 50, (1,), 1), Usage())})
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_what_append_returned_from_survives_a_kill(tmp_path):
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        told = [process.stdout.readline() for _ in range(40)]
        process.kill()
        process.wait()
        with Journal(tmp_path) as journal:
            assert all(line.strip() in journal for line in told)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOENT])
def test_a_rank_whose_lock_cannot_be_asked_for_is_not_waited_for(tmp_path, monkeypatch, number):
    """It has ended: without locks it could not open its journal."""
    ranks = Ranks(tmp_path)
    (tmp_path / "rank1.jsonl").touch()

    def flock(_file, _how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert not ranks._alive(1)


def test_a_marker_that_cannot_be_written_is_a_named_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunFailed, match=r"cannot tell the other ranks through .*answered0\.done"):
        Ranks(tmp_path / "gone").done("answered0")


def test_keys_hold_the_code_that_a_chain_brings():
    question = SimpleNamespace(number=0, digest=lambda: "asked", samples=False)
    item = SimpleNamespace(question=question)
    chains = [Chain(), Chain([PAS()])]
    codes = dict(zip(chains, (None, "sha256:1"), strict=True))

    def keys():
        made = Keys("all", "seed 0", codes.__getitem__)
        return [made.of(chain, item) for chain in chains]

    before = keys()
    assert keys() == before
    codes[chains[1]] = "sha256:2"
    assert [a == b for a, b in zip(keys(), before, strict=True)] == [True, False]
