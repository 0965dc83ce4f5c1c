"""Several processes on one folder: a second run disturbs none, a failing rank ends the others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel

from tempeval import host, tasklist
from tempeval.engine.answer import Answer
from tempeval.engine.journal import Journal, JournalError
from tempeval.engine.question import Outcome
from tempeval.engine.usage import Usage
from tempeval.errors import InvalidSetting
from tempeval.run import ranks, resume
from tempeval.run.ranks import RankDied, Ranks
from tempeval.run.runner import JOURNAL_NAME, IncompleteRuns, run_matrix
from tempeval.run.spec import RunSpec

TINY = Path(__file__).parent.parent / "helpers" / "tiny_tasks"
OUTCOME = Outcome(Answer("yes", (1,), 0), Usage())


class Journalled(FakeModel):
    """Holds a real journal; `fails` is raised while answering."""

    def __init__(self, rank: int = 0, fails: BaseException | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.own_rank, self.fails = rank, fails
        self.store: Journal | None = None
        self.answered = 0

    def open_journal(self, folder: Any) -> None:
        self.store = Journal(folder, self.own_rank)

    def close_journal(self) -> None:
        assert self.store is not None
        self.store.close()

    def answer_all(self, requests: Any, methods: Any) -> Any:
        for _ in methods:
            if self.fails is not None:
                raise self.fails
            self.answered += 1
            yield None


@pytest.fixture(autouse=True)
def tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tasklist, host):
        monkeypatch.setattr(module, "tasks_path", lambda: TINY)
    monkeypatch.setattr(resume, "_revision", lambda *_asked: "sha256:0")


@pytest.fixture
def options(tmp_path: Path) -> RunSpec:
    return RunSpec(
        out=tmp_path / "out", methods=["baseline", "temporal_exit"], tasks=["tempeval_tiny"]
    )


def as_rank(
    monkeypatch: pytest.MonkeyPatch, rank: int, others: str | None = None, run: str = "this"
) -> None:
    """Be one of two ranks of a run; `others` is why the other one cannot start."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")

    def gather(said: tuple[str, str | None]) -> list[tuple[str, str | None]]:
        both = [(run, others), (run, others)]
        both[rank] = (run, said[1])
        return both

    monkeypatch.setattr(ranks, "gather", gather)


def records(options: RunSpec) -> list[tuple[str, str]]:
    found = [json.loads(path.read_text()) for path in sorted(options.out.rglob("run.json"))]
    return [(record["status"], record["error"]) for record in found]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_run_removes_nothing_of_one_that_is_going(
    options: RunSpec, overwrite: bool
) -> None:
    folder = options.out / JOURNAL_NAME
    with Journal(folder) as journal:
        journal.append({"a": OUTCOME})
        for marker in ("rank1.answered0.done", "rank1.abc.answered0.done"):
            (folder / marker).touch()
        before = {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()}
        with pytest.raises(JournalError, match="another process"):
            run_matrix(
                RunSpec(**{**vars(options), "overwrite": overwrite}),
                load=lambda _options: Journalled(),
            )
    after = {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()}
    assert after == before


def test_overwrite_asks_the_model_to_forget_what_it_answers_anew(options: RunSpec) -> None:
    forgotten: list[Any] = []

    class Forgetful(Journalled):
        def forget_answers(self, requests: Any, methods: Any) -> None:
            assert self.answered == 0
            forgotten.append((sorted(requests), list(methods)))

    run_matrix(options, load=lambda _options: Forgetful())
    assert forgotten == []
    again = RunSpec(**{**vars(options), "methods": ["temporal_exit"], "overwrite": True})
    run_matrix(again, load=lambda _options: Forgetful())
    assert forgotten == [(["generate_until"], ["temporal_exit"])]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", [JournalError("disk full"), RuntimeError("disk full")])
def test_a_rank_that_fails_says_why_and_is_not_done(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch, rank: int, error: Exception
) -> None:
    as_rank(monkeypatch, rank)
    with pytest.raises(type(error), match="disk full"):
        run_matrix(options, load=lambda _options: Journalled(rank, fails=error))
    files = list((options.out / JOURNAL_NAME).iterdir())
    (marker,) = [path for path in files if path.suffix != ".jsonl"]
    assert marker.suffix == ".failed"
    assert "disk full" in marker.read_text()
    if rank == 0:
        assert [status for status, _ in records(options)] == ["failed", "failed"]
        assert all("disk full" in reason for _, reason in records(options))
    as_rank(monkeypatch, 1 - rank)
    other = Ranks(options.out / JOURNAL_NAME)
    other.name = "this"
    with pytest.raises(RankDied, match=rf"rank {rank} of 2 failed.*disk full"):
        other.wait_for_others("answered0")


def test_an_interrupt_of_another_rank_is_an_interrupt_here(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM may end one node before the other: the records of rank 0 say what happened."""
    folder = options.out / JOURNAL_NAME
    said = "interrupted by SIGTERM; run the same command to go on where it stopped"

    class Watched(Journalled):
        def answer_all(self, requests: Any, methods: Any) -> Any:
            as_rank(monkeypatch, 1)
            other = Ranks(folder)
            other.name = "this"
            other.failed(said)
            as_rank(monkeypatch, 0)
            yield None

    as_rank(monkeypatch, 0)
    with pytest.raises(RankDied, match="rank 1 of 2 failed: interrupted by SIGTERM"):
        run_matrix(options, load=lambda _options: Watched())
    assert [status for status, _ in records(options)] == ["interrupted", "interrupted"]


def test_the_first_rank_ends_when_another_fails(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = options.out / JOURNAL_NAME
    as_rank(monkeypatch, 1)
    one = Ranks(folder)
    one.start()
    as_rank(monkeypatch, 0)

    class Watched(Journalled):
        def answer_all(self, requests: Any, methods: Any) -> Any:
            for answered in super().answer_all(requests, methods):
                one.failed("no memory left")
                yield answered

    model = Watched()
    began = time.monotonic()
    with pytest.raises(RankDied, match="rank 1 of 2 failed: no memory left"):
        run_matrix(options, load=lambda _options: model)
    assert time.monotonic() - began < ranks.GRACE_SECONDS / 2
    assert model.answered == 1, "it stops at the next answer"
    assert model.calls == [], "nothing is scored"
    assert [status for status, _ in records(options)] == ["failed", "failed"]
    assert all("no memory left" in reason for _, reason in records(options))


def test_a_budget_that_every_rank_refuses_ends_no_rank(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It follows from the settings, so the others meet it too and the next budget can go on."""

    class Picky(Journalled):
        def set_budget(self, visual_token_budget: int | None) -> None:
            if visual_token_budget == 3:
                raise InvalidSetting("too few tokens")

    chosen = RunSpec(**{**vars(options), "budgets": [3, 64]})
    as_rank(monkeypatch, 1)
    one = Ranks(chosen.out / JOURNAL_NAME)
    one.start()
    as_rank(monkeypatch, 0)

    class Both(Picky):
        def open_journal(self, folder: Any) -> None:
            super().open_journal(folder)
            one.folder.mkdir(parents=True, exist_ok=True)

        def set_budget(self, visual_token_budget: int | None) -> None:
            one.done("answered0" if visual_token_budget == 3 else "answered1")
            super().set_budget(visual_token_budget)

    with pytest.raises(IncompleteRuns, match="too few tokens"):
        run_matrix(chosen, load=lambda _options: Both())
    assert sorted(status for status, _ in records(chosen)) == ["complete"] * 2 + ["failed"] * 2


def test_markers_of_another_run_say_nothing(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "GRACE_SECONDS", 0.0)
    folder = options.out / JOURNAL_NAME
    folder.mkdir(parents=True)
    as_rank(monkeypatch, 1, run="earlier")
    earlier = Ranks(folder)
    earlier.start()
    as_rank(monkeypatch, 0)
    now = Ranks(folder)
    now.start()
    earlier.done("answered0")
    earlier.failed("long ago")
    with pytest.raises(RankDied, match="rank 1 of 2 ended before it was done"):
        now.wait_for_others("answered0")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_start_ends_the_others(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    as_rank(monkeypatch, rank, others="another process is writing the journal")
    model = Journalled(rank)
    with pytest.raises(RankDied, match=rf"rank {1 - rank} of 2 failed: another process"):
        run_matrix(options, load=lambda _options: model)
    assert model.answered == 0
    assert records(options) == []


def test_ranks_that_all_cannot_start_each_give_their_own_reason(
    options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(monkeypatch, 0, others="rank 1 has no such file")

    def refuse(_options: RunSpec) -> Any:
        raise InvalidSetting("rank 0 has no such file")

    with pytest.raises(InvalidSetting, match="rank 0 has no such file"):
        run_matrix(options, load=refuse)
