"""Runs that a test may kill: `python journalled_runs.py CHECKPOINT VIDEOS JOURNAL COMPUTED`.

The model loads once. For every line on stdin the process forks a child that answers a fixed plan
into the journal from where it stands, prints the child's id, waits for its end, and prints its
wait status. A child appends one line to COMPUTED before it computes a batch, and writes its
answers to `JOURNAL.answers` at the end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine import session
from tempeval.engine.inference import Inference
from tempeval.engine.journal import Journal
from tempeval.engine.question import Question
from tempeval.families.base import LoadOptions
from tempeval.families.qwen_vl import QwenVL
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.video.clip import Sampling, VideoRef

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAINS = (Chain(), Chain([PAS()]), Chain([TemporalExit(layer=2)]))
TEXTS = ("What happens first?", "up", "Is it faster? yes no", "left", "What happens last?")
BATCH_SIZE = 2
#: Per video and chain: 2 + 2 + 1 questions.
BATCHES_PER_VIDEO = 3 * len(CHAINS)


def plan_questions(videos: Sequence[Path]) -> list[Question]:
    """Ask every text about every frame folder, text by text."""
    made: list[Question] = []
    for text in TEXTS:
        for video in videos:
            content = [{"type": "video"}, {"type": "text", "text": text}]
            messages = ({"role": "user", "content": content},)
            ref = VideoRef(str(video), fps=5.0)
            made.append(
                Question(
                    len(made),
                    messages,
                    (ref,),
                    gen_kwargs={"max_new_tokens": 3},
                    sample=f"{video.name}/{text}",
                )
            )
    return made


def answer_all(family: QwenVL, videos: Sequence[Path], journal: Path) -> None:
    """Answer the whole plan and write the answers, apart from times."""
    inference = Inference(family, Sampling(num_frames=8), batch_size=BATCH_SIZE)
    work = inference.plan(plan_questions(videos))
    found: dict[str, Any] = {}
    with Journal(journal) as store:
        for answered in inference.run(work, CHAINS, store):
            usage = answered.outcome.usage.to_dict()
            counts = {k: v for k, v in usage.items() if not k.endswith("_ms")}
            name = f"{answered.chain.spec} {answered.question.sample}"
            found[name] = [repr(answered.outcome.answer), counts]
    journal.with_suffix(".answers").write_text(json.dumps(found))


def count_batches(path: Path) -> None:
    """Note every batch in a file before it is computed."""
    answer = session._answer

    def noted(*arguments: Any) -> Any:
        with path.open("ab", buffering=0) as file:
            file.write(b"batch\n")
        return answer(*arguments)

    session._answer = noted  # type: ignore[assignment]


def main() -> None:
    checkpoint, videos, journal, computed = (Path(argument) for argument in sys.argv[1:])
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    options = LoadOptions(dtype="float32", min_pixels=784, max_pixels=9408)
    family = QwenVL.load(str(checkpoint), options)
    folders = sorted(videos.iterdir())
    count_batches(computed)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                answer_all(family, folders, journal)
            finally:
                sys.stderr.flush()
                os._exit(0 if sys.exc_info()[0] is None else 1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
