"""Write synthetic run folders for the leaderboard tests; numbers come from a seeded generator.

Run as a script, it rewrites the golden files: those of the scene, and those of the stored run
folders in `runs/`, which are input and stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "helpers"))
import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TASKS = ("tempeval_mini_action", "tempeval_mini_direction", "tempeval_mini_order")
VIDEOS, PER_VIDEO = 40, 3


def sample_lines(
    task: str,
    *,
    accuracy: float = 0.7,
    tokens: float = 36,
    layers: float = 1.0,
    videos: int = VIDEOS,
    per_video: int = PER_VIDEO,
    failed: int = 0,
    flip: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Give samples of `videos * per_video` questions.

    Scores are drawn around `accuracy` with a shared part per video; `flip` is the fraction of
    them that a method changes, so that methods with one seed are paired.
    """
    base = np.random.default_rng([seed, len(task)])
    easy = base.normal(0, 0.15, videos)
    draws, change, other = base.random((3, videos * per_video))
    lines = []
    for i in range(videos * per_video):
        video = i // per_video
        right = float(draws[i] < accuracy + easy[video])
        if change[i] < flip:
            right = float(other[i] < 0.8)
        error = "BadVideo: cannot decode" if i < failed else None
        counts: dict[str, Any] = {
            "input_tokens": 60,
            "output_tokens": 1,
            "frames": 8,
            "visual_tokens": tokens,
            "token_layers": tokens * layers,
            "kv_bytes": int(tokens * layers * 1024 + 4096),
            "quantised_fraction": 0.0,
            "prefill_flops": 1.2e9 * layers,
            "distinct_temporal_ids": 4,
            "decode_ms": 12.0,
            "encode_ms": 6.0,
            "prefill_ms": 20.0 * layers,
            "answer_ms": 4.0,
            "peak_memory_bytes": None,
            "error": error,
        }
        if error:
            counts = dict.fromkeys(counts) | {"error": error}
        lines.append(
            {
                "doc_id": i,
                "target": "A",
                "filtered_resps": ["" if error else "A"],
                "token_counts": [counts],
                "score": right,
                "parse_failure": float(i % 50 == 7),
                "sample_id": f"{task}/{i:04d}",
                "video_id": f"clip_{video:03d}",
                "content_hash": f"sha256:{video:064x}",
            }
        )
    return lines


def write_run(
    folder: Path,
    method: str = "baseline",
    *,
    tasks: Mapping[str, Sequence[dict[str, Any]]],
    task_changes: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write one run folder; `changes` replace keys of run.json."""
    folder.mkdir(parents=True)
    records = {}
    for task, lines in tasks.items():
        counts = [line["token_counts"] for line in lines]
        failed = sum(isinstance(c, list) and any((x or {}).get("error") for x in c) for c in counts)
        shown = {str(line.get("video_id")) for line in lines}
        records[task] = recorded.task(
            prompt_hash=f"sha256:{hashlib.sha256(task.encode()).hexdigest()}",
            expected=len(lines),
            answered=len(lines) - failed,
            failed=failed,
            videos={"total": len(shown), "damaged": 0, "flags": {}},
            samples_file=f"20260101_120000_samples_{task}.jsonl",
            group="tempeval_mini",
        ) | dict(task_changes or {})
        records[task]["version"] = str(records[task]["version"])
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"20260101_120000_samples_{task}.jsonl").write_text(text, encoding="utf-8")
    record = (
        recorded.record(
            records,
            method,
            method_settings={"methods": method.split("+")},
            method_fingerprint=f"sha256:{hashlib.sha256(method.encode()).hexdigest()}",
        )
        | changes
    )
    (folder / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return folder


def write_scene(root: Path) -> Path:
    """Write the runs behind the golden files: two budgets, a limited pair, and all refusals."""

    def every(names: Sequence[str] = TASKS, **options: Any) -> dict[str, list[dict[str, Any]]]:
        return {task: sample_lines(task, **options) for task in names}

    write_run(root / "baseline", tasks=every())
    write_run(root / "pas", "pas", tasks=every(flip=0.2))
    exit_lines = every(flip=0.1, layers=0.714)
    write_run(root / "pas_exit", "pas+temporal_exit", tasks=exit_lines)
    write_run(root / "vrope", "vrope", tasks=every(flip=0.4, failed=2))
    write_run(root / "intp_two_tasks", "intp", tasks=every(TASKS[:2], flip=0.3, tokens=36.5))
    wide: dict[str, Any] = {"frame_policy": {"rule": "uniform", "num_frames": 16, "fps": None}}
    wide["task_changes"] = {
        "damaged": 9,
        "videos": {"total": 40, "damaged": 3, "flags": {"corrupt_packets": 1, "truncated": 2}},
    }
    write_run(root / "16_frames" / "baseline", tasks=every(accuracy=0.8, tokens=72), **wide)
    write_run(
        root / "16_frames" / "pas", "pas", tasks=every(accuracy=0.8, tokens=72, flip=0.1), **wide
    )
    # One task of this run failed; it is ranked on the others.
    part = every(TASKS[:2], accuracy=0.8, tokens=72, flip=0.3)
    part |= every(TASKS[2:], failed=VIDEOS * PER_VIDEO)
    said = "240 of 360 answered, 120 failed, 0 unparsed; first failure 0000: no such file"
    partial = {**wide, "status": "partial", "error": said}
    write_run(root / "16_frames" / "partly", "rearrange", tasks=part, **partial)
    few: dict[str, Any] = {"limit": 20}
    write_run(root / "limit" / "baseline", tasks=every(TASKS[:1], videos=10, per_video=2), **few)
    limited = every(TASKS[:1], videos=10, per_video=2, flip=0.5)
    write_run(root / "limit" / "pas", "pas", tasks=limited, **few)
    # None of the following can be compared.
    write_run(root / "bad" / "half", "pas", tasks=every(), dtype="float16")
    write_run(
        root / "bad" / "native", "ntk", tasks=every(), position_rule="native", dtype="float16"
    )
    write_run(root / "bad" / "pooled", "pool", tasks=every(tokens=18))
    write_run(
        root / "bad" / "again", "pas", tasks=every(flip=0.2), finished="2026-01-01T11:00:00+00:00"
    )
    error = "RuntimeError: out of | memory\n<b>on</b> line 2"
    write_run(root / "bad" / "died", "kivi", tasks=every(), status="failed", error=error)
    lost = write_run(root / "bad" / "lost", "slowfast", tasks=every(TASKS[:1]))
    next(lost.glob("*.jsonl")).unlink()
    cut = write_run(root / "bad" / "cut", "staged", tasks=every(TASKS[:1]))
    file = next(cut.glob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-40])
    many = every(TASKS[:1], failed=12)
    write_run(root / "bad" / "failing", "reverse", tasks=many)
    fewer = {TASKS[0]: sample_lines(TASKS[0])[:-3]}
    write_run(root / "bad" / "subset", "shuffle", tasks=fewer)
    unknown = sample_lines(TASKS[0])
    for line in unknown:
        line["token_counts"] = [None]
    write_run(root / "bad" / "stock", "stock", tasks={TASKS[0]: unknown})
    broken = root / "bad" / "syntax"
    broken.mkdir()
    (broken / "run.json").write_text('{"schema": 2,\n "status": ', encoding="utf-8")
    newer = root / "bad" / "newer"
    newer.mkdir()
    (newer / "run.json").write_text('{"schema": 3}', encoding="utf-8")
    return root


if __name__ == "__main__":  # rewrites the golden files; read the difference before keeping it
    import tempfile

    from tempeval.leaderboard import board, build

    with tempfile.TemporaryDirectory() as made:
        summary = build([write_scene(Path(made) / "runs")], Path(made) / "out", draws=2000)
        here = Path(__file__).parent
        (here / "scene.md").write_bytes(summary.markdown.read_bytes())
        (here / "scene_summary.md").write_text(summary.text, encoding="utf-8")
        document = json.loads(summary.json.read_text(encoding="utf-8"))
        document["tempeval_version"] = "any"
        text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
        (here / "scene.json").write_text(f"{text}\n", encoding="utf-8")
        board.__version__ = "any"
        stored = build([here / "runs"], Path(made) / "stored", draws=500)
        (here / "runs_out").mkdir(exist_ok=True)
        for path in stored.files:
            if path.parent == Path(made) / "stored" and path.suffix != ".html":
                (here / "runs_out" / path.name).write_bytes(path.read_bytes())
