"""Prove that a change moves no number: one fixed set run on another commit and on this checkout.

    .venv/bin/python .ci/equality.py COMMIT          logits, tokens and usage, every method x family
    .venv/bin/python .ci/equality.py COMMIT --runs   samples files and leaderboards of whole runs

COMMIT is made into a git worktree of its own. Checkpoints, adapters and videos are made once, by
this checkout, and read by both sides; each side answers with its own code. Floats are compared bit
by bit. The exit code is 0 where everything is equal, 1 where something differs, 2 where a side
could not run.

`make long` runs both parts against the commit in EQUALITY.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TINY = ("qwen2_5_vl", "qwen2_vl", "llava_onevision", "video_llava", "video_llava_original")
#: Checkpoints that come with the package; they answer, so their tokens mean something.
SHIPPED = ("qwen2_5_vl", "llava_onevision", "video_llava")
CHAINS = (
    "baseline",
    "intp[kv_bits=16;scale=2]",
    "kv_quant[nbits=4;group_size=8;residual_length=8]",
    "pas",
    "pave[adapter=ADAPTER;side_channel=highfps]",
    "rearrange",
    "reverse_order",
    "reverse_pe",
    "rope_scale[scale=2]",
    "slowfast",
    "staged_sparse[strategies=1/2;question_layers=0/2;frame_layer=2]",
    "staged_sparse[strategies=3;exit_layer=2]",
    "temporal_exit[layer=2]",
    "vrope",
    "pas+temporal_exit[layer=2]",
    "temporal_exit[layer=2]+kv_quant[nbits=2;group_size=8;residual_length=8]",
    "pas+staged_sparse+kv_quant[group_size=8;residual_length=8]",
)
QUESTIONS = (
    "What happens first?",
    "Which way does the red square move? yes no",
    "Is it faster?",
)
CHOICES = ("yes", "no, slower than before", "faster")
NUM_FRAMES = 16

#: Of whole runs: options, and how many processes.
RUNS = {
    "one process": (
        "--methods "
        "baseline,pas+temporal_exit,kv_quant[group_size=8;residual_length=8],staged_sparse "
        "--tasks tempeval_mini_action,tempeval_mini_direction,tempeval_mini_order_choice --limit 6",
        1,
    ),
    "two processes": (
        "--methods baseline,pas --tasks tempeval_mini_direction,tempeval_mini_order_choice "
        "--limit 6",
        2,
    ),
    "whole tasks": ("--methods baseline,temporal_exit --tasks tempeval_mini_action", 1),
    "another family": (
        "--methods baseline,vrope --tasks tempeval_mini_direction --limit 4 "
        "--pretrained mini:llava_onevision --num-frames 4",
        1,
    ),
}
#: What was called otherwise on one side, by the name that both are compared under.
RENAMED = {"token_counts": "usage", "costs": "usage", "ledger": "usage", "measures": "usage"}
#: Measured times, and names of code, records and moments: they differ from run to run.
UNLIKE = (
    *("_ms", "seconds", "peak_memory_bytes", "schema", "digest", "code", "commit", "time", "date"),
    *("started", "finished", "samples_file", "results_file"),
)


def main() -> int:
    """Run both sides and print what is equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("commit", nargs="?", help="what to compare with")
    parser.add_argument("--runs", action="store_true", help="compare whole runs")
    parser.add_argument("--here", help="another commit in the place of this checkout")
    parser.add_argument("--only", default="", help="families whose name contains this")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make is not None:
        make_inputs(given.make)
        return 0
    if given.answer is not None:
        folder, family, out = given.answer
        answer_all(Path(folder), family, Path(out))
        return 0
    if given.commit is None:
        parser.error("name a commit")
    with contextlib.ExitStack() as stack:
        if given.keep is not None:
            given.keep.mkdir(parents=True, exist_ok=True)
            work = given.keep.resolve()
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="equality-")))
        other = stack.enter_context(worktree(given.commit, work / "other"))
        sides = {"there": other, "here": ROOT}
        if given.here is not None:
            sides["here"] = stack.enter_context(worktree(given.here, work / "this"))
        try:
            if given.runs:
                return compare_runs(work, sides)
            return compare_answers(work, sides, given.only)
        except subprocess.CalledProcessError as error:
            say(f"could not run {' '.join(map(str, error.cmd))}:\n{error.output}")
            return 2


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Any:
    """Check a commit out beside this one, as long as it is needed."""
    git = ["git", "-C", str(ROOT), "worktree"]
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([*git, "prune"], check=True)  # noqa: S603
    add = [*git, "add", "--quiet", "--force", "--detach", str(folder), commit]
    subprocess.run(add, check=True)  # noqa: S603
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False)  # noqa: S603


def call(side: Path, arguments: list[object], processes: int = 1) -> str:
    """Run Python on one side's package, alone or in several processes; return what it said."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("LMMS", "TEMPEVAL", "RANK"))}
    own |= {"PYTHONPATH": str(side), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    own |= dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(  # noqa: S603
        [*command, *map(str, arguments)],
        env=own,
        cwd=tempfile.gettempdir(),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


# ---- logits, tokens, usage -----------------------------------------------------------------------


def compare_answers(work: Path, sides: dict[str, Path], only: str) -> int:
    """Answer on both sides; print a table of chains x families."""
    inputs = work / "inputs"
    if not (inputs / "made").exists():
        call(ROOT, [__file__, "--make", inputs])
    families = [*(f"tiny {name}" for name in TINY), *(f"mini {name}" for name in SHIPPED)]
    families = [name for name in families if only in name]
    found: dict[tuple[str, str], str] = {}
    for family in families:
        for name, side in sides.items():
            out = work / f"{name}.pt"
            call(side, [__file__, "--answer", inputs, family, out])
        for chain, verdict in differences(work).items():
            found[chain, family] = verdict
        count = sum(found[chain, family].startswith("equal") for chain in CHAINS)
        say(f"{family}: {count} of {len(CHAINS)}")
    print_table(found, families)
    return 0 if all(verdict.startswith("equal") for verdict in found.values()) else 1


def print_table(found: dict[tuple[str, str], str], families: list[str]) -> None:
    """Print what each cell says, chains down and families across."""
    rows = [["", *families]]
    rows += [[chain, *(found[chain, family] for family in families)] for chain in CHAINS]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def differences(work: Path) -> dict[str, str]:
    """Say of each chain what both sides answered, or the first thing that differs."""
    import torch

    there, here = (torch.load(work / f"{name}.pt", weights_only=True) for name in ("there", "here"))
    verdicts = {}
    for chain in CHAINS:
        a, b = there[chain], here[chain]
        if a["refused"] or b["refused"]:
            same = a["refused"] == b["refused"]
            verdicts[chain] = (
                f"equal: {a['refused']}" if same else f"{a['refused']} / {b['refused']}"
            )
            continue
        verdict = "equal"
        if len(a["logits"]) != len(b["logits"]):
            verdict = f"{len(a['logits'])} / {len(b['logits'])} forwards"
        for number, (x, y) in enumerate(zip(a["logits"], b["logits"], strict=False)):
            if verdict == "equal" and not torch.equal(x, y):
                far = f"{float((x - y).abs().max()):.2g}" if x.shape == y.shape else "shape"
                verdict = f"logits {number}: {far}"
        for name in ("answers", "usage"):
            if verdict == "equal":
                verdict = first_difference(json.loads(a[name]), json.loads(b[name])) or verdict
        verdicts[chain] = verdict
    return verdicts


def make_inputs(folder: Path) -> None:
    """Make tiny checkpoints with adapters, and a video of noise, with the tests' helpers."""
    import numpy as np
    from PIL import Image

    for part in ("tests", "tests/helpers"):
        sys.path.insert(0, str(ROOT / part))
    conftest = importlib.import_module("conftest")
    llava = importlib.import_module("tempeval.verification.tiny_llava_onevision")
    video_llava = importlib.import_module("tempeval.verification.tiny_video_llava")
    pave = importlib.import_module("tiny_pave")
    folder.mkdir(parents=True, exist_ok=True)
    for name in TINY[:2]:
        conftest.save_tiny_qwen_vl(folder / name, name)
    llava.save_tiny_llava_onevision(folder / "llava_onevision", conftest.build_tokenizer())
    video_llava.save_tiny_port(folder / "video_llava")
    video_llava.save_tiny_original(folder / "video_llava_original")
    for name in TINY:
        family = load(folder / name)
        pave.save_tiny_pave(folder / f"{name}_pave", family, side=family.feature_width)
    draw = np.random.default_rng(0)
    (folder / "video").mkdir(exist_ok=True)
    for number in range(NUM_FRAMES):
        frame = draw.integers(0, 256, (84, 112, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / "video" / f"{number:05d}.png")
    (folder / "made").touch()


def named(name: str, *modules: str) -> Any:
    """Find a name in the first of the modules that has it, wherever a side keeps it."""
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            found = getattr(importlib.import_module(f"tempeval.{module}"), name, None)
            if found is not None:
                return found
    raise ImportError(f"no tempeval module of {', '.join(modules)} has {name}")


def load(folder: Path) -> Any:
    """Load a checkpoint in float32 on the CPU."""
    options = named("LoadOptions", "families.base")(dtype="float32")
    return named("load_family", "engine.base_model", "families.loading")(str(folder), options)


def answer_all(inputs: Path, family_name: str, out: Path) -> None:
    """Answer the fixed questions under every chain; save logits, answers and usage."""
    import torch

    kind, _, name = family_name.partition(" ")
    family = load(inputs / name if kind == "tiny" else shipped(name))
    parse_chain = named("parse_chain", "methods.registry")
    results = {}
    for text in CHAINS:
        spelled = text.replace("ADAPTER", str(inputs / f"{name}_pave"))
        logits: list[torch.Tensor] = []
        head = family.model.get_output_embeddings()
        hook = head.register_forward_hook(
            lambda module, given, made, logits=logits: logits.append(made.clone())
        )
        record: dict[str, Any] = {"refused": "", "logits": logits, "answers": "", "usage": ""}
        try:
            answers, usage = answered(family, parse_chain(spelled), inputs / "video")
            record["answers"], record["usage"] = json.dumps(answers), json.dumps(usage)
        except named("TempevalError", "errors") as error:
            record["refused"] = type(error).__name__
        finally:
            hook.remove()
        results[text] = record
    torch.save(results, out)


def shipped(name: str) -> Path:
    """Return the folder of a checkpoint that comes with the package."""
    folder: Path = named("checkpoint", "mini.paths")(name)
    return folder


def answered(family: Any, chain: Any, video: Path) -> tuple[list[Any], list[Any]]:
    """Answer three questions of a video in batches of two, and one by its choices."""
    inference_class = named("Inference", "engine.inference", "engine.batching")
    question_class = named("Question", "engine.question")
    video_ref, sampling = (named(name, "video.clip") for name in ("VideoRef", "Sampling"))
    continuations = named("Continuations", "engine.continuations", "engine.question")
    inference = inference_class(family, sampling("uniform", NUM_FRAMES), batch_size=2)
    visuals = (video_ref(str(video), fps=2.0),)
    asked = []
    for number, text in enumerate((*QUESTIONS, QUESTIONS[0])):
        content = [{"type": "video"}, {"type": "text", "text": text}]
        message = ({"role": "user", "content": content},)
        about: dict[str, Any] = {"gen_kwargs": {"max_new_tokens": 3}}
        if number == len(QUESTIONS):
            about = {"kind": "score", "continuations": continuations(CHOICES)}
        asked.append(question_class(number, message, visuals, sample=f"set/{number}", **about))
    answers, usage = [], []
    for one in inference.run(inference.plan(asked), [chain]):
        outcome = one.outcome
        given = outcome.answer
        ids = getattr(given, "token_ids", None)
        answers.append(given.to_dict() if ids is None and given is not None else ids)
        used = outcome.usage if hasattr(outcome, "usage") else outcome.ledger
        usage.append(used.to_dict())
    return answers, usage


# ---- whole runs ----------------------------------------------------------------------------------


def compare_runs(work: Path, sides: dict[str, Path]) -> int:
    """Run the fixed set on both sides; compare samples files and leaderboard documents."""
    verdicts = []
    for label, (options, processes) in RUNS.items():
        texts = []
        for name, side in sides.items():
            out = work / name / label.replace(" ", "-")
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            line = ["-m", "tempeval", "run", *options.split(), "--device", "cpu", "--out", out]
            call(side, line, processes)
            board = ["-m", "tempeval", "leaderboard", out, "-o", out / "leaderboard"]
            with contextlib.suppress(subprocess.CalledProcessError):
                call(side, [*board, "--draws", 500])  # 1 where nothing is ranked: a trial run
            texts.append({**samples_in(out), "leaderboard.json": document_in(out)})
        there, here = texts
        for file in sorted(there | here):
            if file not in there or file not in here:
                verdict = "on one side only"
            else:
                verdict = first_difference(there[file], here[file]) or "equal"
            say(f"{label}, {file}: {verdict}{one_sided(there.get(file), here.get(file))}")
            verdicts.append(verdict)
    return 0 if verdicts and all(verdict == "equal" for verdict in verdicts) else 1


def samples_in(out: Path) -> dict[str, Any]:
    """Read the samples files of all run folders, by run and task."""
    found = {}
    for path in sorted(out.rglob("*_samples_*.jsonl")):
        task = path.stem.partition("_samples_")[2]
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found[f"{path.parent.relative_to(out)} {task}"] = lines
    return found


def document_in(out: Path) -> Any:
    """Read the leaderboard's document."""
    return json.loads((out / "leaderboard" / "leaderboard.json").read_text(encoding="utf-8"))


def shared(value: Any) -> Any:
    """Return a value under the names that both sides share, without what always differs."""
    if isinstance(value, dict):
        return {
            RENAMED.get(key, key): shared(part)
            for key, part in value.items()
            if not any(word in key for word in UNLIKE)
        }
    return [shared(part) for part in value] if isinstance(value, list) else value


def first_difference(there: Any, here: Any, place: str = "") -> str:
    """Return where two JSON values first differ and how, of what both have; empty where nowhere."""
    if not place:
        there, here = shared(there), shared(here)
    if isinstance(there, dict) and isinstance(here, dict):
        parts = [(f"{place}.{key}", there[key], here[key]) for key in there if key in here]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        parts = [(f"{place}[{n}]", *pair) for n, pair in enumerate(zip(there, here, strict=True))]
    else:
        same = type(there) is type(here) and there == here
        return "" if same or there != there else f"{place}: {there!r:.60} / {here!r:.60}"
    return next((text for part in parts if (text := first_difference(*part[1:], part[0]))), "")


def one_sided(there: Any, here: Any) -> str:
    """Name the fields that only one side has; they are no difference, but a reader should know."""
    left, right = fields_of(shared(there)), fields_of(shared(here))
    words = [f"-{name}" for name in sorted(left - right)]
    words += [f"+{name}" for name in sorted(right - left)]
    return f" (fields: {' '.join(words)})" if words else ""


def fields_of(value: Any) -> set[str]:
    """Collect the names of all fields, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(fields_of, value.values()))
    return set().union(*map(fields_of, value)) if isinstance(value, list) else set()


if __name__ == "__main__":
    raise SystemExit(main())
