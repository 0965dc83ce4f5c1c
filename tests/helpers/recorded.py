"""Whole records of runs, as JSON, for tests that write a `run.json` of their own."""

from __future__ import annotations

from typing import Any

from tempeval.run.record import SCHEMA


def task(**changes: Any) -> dict[str, Any]:
    """Return one task of a record: four samples, all answered; `changes` replace keys."""
    return {
        "version": "1",
        "prompt_hash": "sha256:" + "aa" * 32,
        "dataset_digest": "sha256:" + "5e" * 32,
        "task_digest": "",
        "videos_digest": "",
        "video_stamps": "",
        "expected": 4,
        "answered": 4,
        "failed": 0,
        "unparsed": 0,
        "skipped": 0,
        "skipped_digest": None,
        "damaged": 0,
        "videos": None,
        "samples_file": "s.jsonl",
        "score_key": "score",
        "cluster_key": "video_id",
        "higher_is_better": True,
        "group": None,
        "unranked": "",
        "p_c_change": None,
        "p_c_pairs": None,
    } | changes


def record(
    tasks: dict[str, Any] | None = None, method: str = "baseline", **changes: Any
) -> dict[str, Any]:
    """Return the record of a complete run; `changes` replace keys."""
    return {
        "schema": SCHEMA,
        "tempeval_version": "0.1.0",
        "status": "complete",
        "error": None,
        "method": method,
        "method_settings": {},
        "method_fingerprint": method,
        "tasks": tasks,
        "world_size": 1,
        "seed": 0,
        "limit": None,
        "started": "2026-01-01T12:00:00+00:00",
        "finished": "2026-01-01T12:03:00+00:00",
        "wall_seconds": 180.0,
        "answering_seconds": None,
        "shared_with": None,
        "command": f"tempeval run --method {method}",
        "request": {},
        "code": {},
        "git": None,
        "method_label": method,
        "method_notes": [],
        "method_resolved": {},
        "model": "mini",
        "model_revision": "sha256:" + "ab12" * 16,
        "base_model": None,
        "base_revision": None,
        "adapter_revision": None,
        "family": "qwen_vl",
        "family_settings": {},
        "frame_policy": {"rule": "uniform", "num_frames": 8, "fps": None, "base_num_frames": None},
        "shown": {},
        "visual_token_budget": None,
        "min_pixels": 3136,
        "max_pixels": 50176,
        "position_rule": "original",
        "system_prompt": None,
        "gen_kwargs": {},
        "generation": {},
        "quantization": None,
        "dtype": "float32",
        "attention_kernel": "cpu_flash",
        "replayed": 0,
        "computed": 4,
        "decoder": "auto",
        "device": "cpu",
        "gpu": None,
        "packages": {"lmms_eval": "0.7.3", "torch": "2.15.0", "transformers": "5.23.0"},
        "results_file": "20260101_120000_results.json",
        "groups": {},
        "files": {},
        "videos": {"total": 1, "damaged": 0, "flags": {}},
        "failures": {},
        "left_out": {},
    } | changes
