"""Write run folders of any size, as `tempeval run` writes them, for the leaderboard's speed.

    python tests/helpers/synthetic_runs.py OUT --methods 10 --tasks 10 --samples 10000

Scores are right or wrong, or with `--graded` numbers in between; questions about one video are
correlated, and methods agree on most of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import recorded

METHODS = ("baseline", "pas", "vrope", "temporal_exit", "intp", "slowfast")


@dataclass(frozen=True)
class Shape:
    """How much to write; every method answers every task."""

    methods: int = 10
    tasks: int = 10
    samples: int = 10_000
    per_video: int = 3
    graded: bool = False
    shared_videos: bool = True


def write_runs(root: Path, shape: Shape, seed: int = 0) -> int:
    """Write one run folder per method; return the number of sample lines."""
    for number in range(shape.methods):
        name = METHODS[number] if number < len(METHODS) else f"method_{number}"
        _write_run(root / f"{number:02d}_{name}", name, number, shape, seed)
    return shape.methods * shape.tasks * shape.samples


def _write_run(folder: Path, method: str, number: int, shape: Shape, seed: int) -> None:
    folder.mkdir(parents=True)
    records = {}
    for task in range(shape.tasks):
        name = f"tempeval_synthetic_{task:02d}"
        file = f"20260101_120000_samples_{name}.jsonl"
        _write_samples(folder / file, name, task, number, shape, seed)
        records[name] = recorded.task(
            prompt_hash=_digest(name),
            dataset_digest=_digest(f"{name} data"),
            expected=shape.samples,
            answered=shape.samples,
            samples_file=file,
            group="tempeval_synthetic",
        )
    record = recorded.record(
        records,
        method,
        method_fingerprint=_digest(method),
        model="synthetic/model",
        model_revision="5e" * 20,
        dtype="bfloat16",
        attention_kernel="cuda_flash",
        device="cuda:0",
        gpu="Synthetic",
        packages={"lmms_eval": "0.7.3"},
        finished=f"2026-01-01T12:{number % 60:02d}:00+00:00",
        command="tempeval run",
    )
    (folder / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def _write_samples(path: Path, name: str, task: int, method: int, shape: Shape, seed: int) -> None:
    n = shape.samples
    shared = np.random.default_rng([seed, task])
    own = np.random.default_rng([seed, task, method])
    videos = np.arange(n) // shape.per_video
    easy = shared.normal(0, 0.2, videos[-1] + 1)[videos]
    score = (shared.random(n) < 0.6 + easy).astype(float)
    changed = own.random(n) < (0.1 if method else 0.0)
    score[changed] = own.random(changed.sum()) < 0.65
    if shape.graded:
        score = np.clip(score + own.normal(0, 0.05, n), 0, 1)
    times = own.random((n, 3)) * 100
    prefix = "video" if shape.shared_videos else name
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            file.write(json.dumps(_line(name, prefix, i, int(videos[i]), score[i], times[i])))
            file.write("\n")


def _line(
    name: str, prefix: str, i: int, video: int, score: float, times: np.ndarray
) -> dict[str, Any]:
    decode, prefill, answer = (float(value) for value in times)
    counts = {
        "input_tokens": 4103,
        "output_tokens": 2,
        "frames": 8,
        "visual_tokens": 4000,
        "token_layers": 4000.0,
        "kv_bytes": 234881024,
        "quantised_fraction": 0.0,
        "prefix_shared": True,
        "prefill_flops": 5.7e13,
        "distinct_temporal_ids": 4,
        "decode_ms": decode,
        "encode_ms": 190.60929700026463,
        "prefill_ms": prefill,
        "answer_ms": answer,
        "amortised_ms": (decode + prefill) / 3 + answer,
        "peak_memory_bytes": 17179869184,
        "flags": [],
        "error": None,
    }
    return {
        "doc_id": i,
        "target": "A",
        "filtered_resps": "A",
        "token_counts": [counts],
        "doc_hash": _digest(f"{name}{i}").removeprefix("sha256:"),
        "accuracy": {"score": score, "video_id": f"{prefix}_{video:06d}"},
        "parse_failure": 0.0,
        "score": score,
        "sample_id": f"{name}-{i:06d}",
        "video_id": f"{prefix}_{video:06d}",
        "content_hash": _digest(f"{name}{i}").removeprefix("sha256:")[:16],
        "parsed": "A",
        "input": "Which of the following happens first in the video? A. the ball moves left "
        "B. the ball turns red C. the box appears D. nothing. Answer with the letter only.",
    }


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for name in ("methods", "tasks", "samples", "per_video"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Shape, name))
    parser.add_argument("--graded", action="store_true")
    parser.add_argument("--own-videos", action="store_true")
    chosen = parser.parse_args()
    shape = Shape(
        chosen.methods,
        chosen.tasks,
        chosen.samples,
        chosen.per_video,
        chosen.graded,
        not chosen.own_videos,
    )
    sys.stdout.write(f"{write_runs(chosen.out, shape)} lines\n")


if __name__ == "__main__":
    main()
