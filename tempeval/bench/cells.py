"""What is measured, one class per kind of cell; a round measures all sides once, by turns.

The three kinds stand together because they must stay alike: the same warming up, the same turns,
the same check that both sides do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tempeval.bench.check import check_same_input, question_tokens
from tempeval.bench.sides import BenchMismatch, usage_of
from tempeval.bench.turns import by_turns
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.clock import now
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.query_shift import shift_queries
from tempeval.methods.registry import parse_chain
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.bench.sides import Sides
    from tempeval.families.qwen_vl import QwenVL
    from tempeval.stages import VisualTokens

#: Full forwards measured per round; the time of N is scaled from them.
FORWARDS = 3
FORWARD, SHARED = "forward", "shared"
#: The method whose operator, the query shift, is timed alone as well, and how often.
SHIFTING = "pas"
REPETITIONS = 9
#: Largest difference of a log-likelihood (nats) between the shared prefix and a full forward.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}


class Cell(Protocol):
    """One line of measurement.

    Attributes:
        extra_rounds: rounds beyond the pairs that were asked for; cheap cells take more.
    """

    extra_rounds: int

    @property
    def name(self) -> str:
        """Key in the log."""
        ...

    def prepare(self) -> dict[str, Any]:
        """Warm up, prove that the sides do the same, and return facts."""
        ...

    def measure(self, number: int) -> dict[str, Any]:
        """Measure one round; its number decides who goes first."""
        ...


@dataclass
class QuestionsCell:
    """m questions on each video: stock against ours, from the files on disk to the answers.

    `checked` remembers, for all cells, the facts of the files whose input was compared.
    """

    sides: Sides
    videos: Sequence[str]
    texts: Sequence[str]
    tokens: int
    checked: dict[str, dict[str, Any]]
    extra_rounds: int = 0

    @property
    def name(self) -> str:
        """Key in the log."""
        return f"questions/{len(self.texts)}@{self.tokens}"

    def prepare(self) -> dict[str, Any]:
        """Prove that both sides get the same input (once per file); this also warms both up."""
        for video in self.videos:
            if video not in self.checked:
                self.checked[video] = check_same_input(self.sides, video, self.texts[0])
        return {
            **self.checked[self.videos[0]],
            "question_tokens": fmean(question_tokens(self.sides, text) for text in self.texts),
            "questions": len(self.texts),
            "videos": len(self.videos),
        }

    def measure(self, number: int) -> dict[str, Any]:
        """Time both sides; the usage of ours gives the stage times."""
        found = by_turns(
            number,
            {
                "stock": lambda: self.sides.ask_stock(self.videos, self.texts),
                "ours": lambda: self.sides.ask_ours(self.videos, self.texts),
            },
        )
        theirs, mine = found.results["stock"], found.results["ours"]
        usages = [usage_of(result) for result in mine]
        same = [a.text == b.text for a, b in zip(theirs, mine, strict=True)]
        stages = {
            stage: fmean(getattr(usage, f"{stage}_ms") or 0.0 for usage in usages)
            for stage in ("decode", "encode", "prefill", "answer")
        }
        return {
            "seconds": found.seconds,
            "cpu_seconds": found.cpu_seconds,
            "stages_ms": stages,
            "same_answers": fmean(same),
        }


@dataclass
class LabelsCell:
    """N labels of one question: one shared prefix against N full forwards.

    Both start from the visual tokens: decoding and vision are in neither time. Of the forwards,
    `FORWARDS` per round are measured, each over other labels, and the time of N is scaled.
    """

    family: QwenVL
    video: str
    question: str
    labels: Sequence[str]
    tokens: int
    frames: int
    dtype: str
    extra_rounds: int = 0

    @property
    def name(self) -> str:
        """Key in the log."""
        return f"labels/{len(self.labels)}@{self.tokens}"

    def prepare(self) -> dict[str, Any]:
        """Encode the video, and check scores of the shared prefix against full forwards."""
        self._visual = encode(self.family, self.video, self.frames)
        messages = [{"role": "user", "content": [_VIDEO, {"type": "text", "text": self.question}]}]
        self._prompt = self.family.tokenize(messages)
        encoded = [
            self.family.tokenizer(label, add_special_tokens=False)["input_ids"]
            for label in self.labels
        ]
        self._labels = [torch.tensor(ids, dtype=torch.long) for ids in encoded]
        _, shared = self._shared()
        for number in range(min(FORWARDS, len(shared))):
            _, alone = self._forward(number)
            if abs(alone - shared[number]) > TOLERANCE[self.dtype]:
                raise BenchMismatch(
                    f"label {number} scores {shared[number]:.4f} on the shared prefix and "
                    f"{alone:.4f} alone"
                )
        return {
            "visual_tokens": self._visual.num_tokens,
            "label_tokens": fmean(len(ids) for ids in encoded),
            "forwards_measured": FORWARDS,
        }

    def measure(self, number: int) -> dict[str, Any]:
        """Time the shared prefix, and some full forwards."""
        step = [(number * FORWARDS + i) % len(self._labels) for i in range(FORWARDS)]
        sides: dict[str, Callable[[], Any]] = {
            FORWARD: lambda: (sum(self._forward(label)[0] for label in step), None),
            SHARED: self._shared,
        }
        found = by_turns(number, sides)
        for seconds in (found.seconds, found.cpu_seconds):
            seconds[FORWARD] /= FORWARDS
        return {"seconds": found.seconds, "cpu_seconds": found.cpu_seconds}

    @torch.no_grad()
    def _shared(self) -> tuple[float, list[float]]:
        family = self.family
        start = now(family.device)
        layout, tail = family.layout(self._prompt, [self._visual])
        plan = make_plan(parse_chain("baseline"), layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, family.embed(layout, [self._visual]))
            scores = score_choices(attachment, prefix, tail, self._labels)
        return now(family.device) - start, [score.log_likelihood for score in scores]

    @torch.no_grad()
    def _forward(self, number: int) -> tuple[float, float]:
        """Score one label by a plain forward of the whole prompt, as a host without sharing."""
        family, label = self.family, self._labels[number]
        model, device = family.model, family.device
        start = now(device)
        layout, tail = family.layout(self._prompt, [self._visual])
        ids = torch.cat([layout.input_ids, tail, label.to(device)]).unsqueeze(0)
        merge = model.config.vision_config.spatial_merge_size
        t, h, w = self._visual.grid
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=2 * (ids == model.config.video_token_id).int(),
            mm_encoder_outputs={
                "video": BaseModelOutputWithPooling(pooler_output=[self._visual.embeddings])
            },
            video_grid_thw=torch.tensor([[t, h * merge, w * merge]], device=device),
            second_per_grid_ts=torch.tensor([self._visual.seconds_per_grid], device=device),
            use_cache=False,
            logits_to_keep=len(label) + 1,
        ).logits[0, :-1]
        rows = torch.log_softmax(logits.float(), dim=-1)
        total = float(rows.gather(1, label.to(device).unsqueeze(1)).double().sum())
        return now(device) - start, total


@dataclass
class MethodsCell:
    """Prefill of the video prefix under several chains, planning and attaching included.

    Rounds are cheap beside those of questions, and a goal of 1.05 is within the noise of few: 21
    rounds at the usual 7 pairs.
    """

    family: QwenVL
    video: str
    chains: Sequence[str]
    tokens: int
    frames: int
    extra_rounds: int = 14

    @property
    def name(self) -> str:
        """Key in the log."""
        return f"prefill@{self.tokens}"

    def prepare(self) -> dict[str, Any]:
        """Encode the video and run every chain once."""
        self._visual = encode(self.family, self.video, self.frames)
        messages = [{"role": "user", "content": [_VIDEO, {"type": "text", "text": "?"}]}]
        self._prompt = self.family.tokenize(messages)
        for chain in self.chains:
            self._prefill(chain)
        facts = {
            "visual_tokens": self._visual.num_tokens,
            "layers": self.family.geometry.num_layers,
        }
        return facts | ({"operator": self._operator()} if SHIFTING in self.chains else {})

    def measure(self, number: int) -> dict[str, Any]:
        """Time every chain once."""
        sides: dict[str, Callable[[], Any]] = {}
        for chain in self.chains:
            sides[chain] = lambda chain=chain: (self._prefill(chain), None)  # type: ignore[misc]
        found = by_turns(number, sides)
        return {"seconds": found.seconds, "cpu_seconds": found.cpu_seconds}

    @torch.no_grad()
    def _prefill(self, chain: str) -> float:
        family = self.family
        layout, _ = family.layout(self._prompt, [self._visual])
        start = now(family.device)
        plan = make_plan(parse_chain(chain), layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefill(attachment, family.embed(layout, [self._visual]))
        return now(family.device) - start

    @torch.no_grad()
    def _operator(self) -> dict[str, Any]:
        """Time `shift_queries` alone, on queries laid out as a prefill's, once for every layer.

        The last layer is left out: its queries are never made (see `tempeval.engine.prefix`).
        """
        family, geometry = self.family, self.family.geometry
        layout, _ = family.layout(self._prompt, [self._visual])
        plan = make_plan(parse_chain(SHIFTING), layout, geometry)
        shape = (1, layout.length, geometry.num_heads, geometry.head_dim)
        query = torch.ones(shape, dtype=family.model.dtype, device=family.device).transpose(1, 2)
        layers = [layer.rotary for layer in plan.layers[:-1]]
        seconds = []
        for _ in range(REPETITIONS + 1):
            start = now(family.device)
            for rotary in layers:
                if rotary.shift_scale is not None:
                    shift_queries(query, rotary, rotary.shift_scale)
            seconds.append(now(family.device) - start)
        return {
            "chain": SHIFTING,
            "seconds": median(seconds[1:]),  # the first warms up
            "layers": len(layers),
            "repetitions": REPETITIONS,
        }


_VIDEO = {"type": "video"}


def encode(family: QwenVL, video: str, frames: int) -> VisualTokens:
    """Decode and encode a video file, untimed."""
    clip = read_clip(VideoRef(video), Sampling(num_frames=frames), resize=family.resize())
    return family.encode(clip)
