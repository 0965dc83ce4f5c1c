"""An `lmms` that answers `yes` without a model, with what a matrix needs of the real wrapper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

from tempeval.run.record import FramePolicy, ModelFacts


@dataclass
class Counts(TokenCounts):
    """Token counts that carry the error of a sample, and the flags of its video."""

    error: str | None = None
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"visual_tokens": 16, "error": self.error, "flags": list(self.flags)}


class FakeModel(lmms):
    """Answers `yes`.

    Args:
        revision: what `run_facts` says.
        broken: text in a prompt -> error recorded for that sample.
        crash: method under which `generate_until` raises this exception.
        silent: answer with something that no parser reads.
        flags: text in a prompt -> flags of that sample's video.
        lost: names of videos that cannot be decoded.
    """

    is_simple = False

    def __init__(
        self,
        revision: str = "sha256:0",
        broken: dict[str, str] | None = None,
        crash: dict[str, BaseException] | None = None,
        silent: bool = False,
        flags: dict[str, tuple[str, ...]] | None = None,
        lost: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.revision, self.broken, self.crash = revision, broken or {}, crash or {}
        self.flags, self.lost = flags or {}, lost
        self.answer = "perhaps" if silent else "yes"
        self.method, self.budget = "baseline", None
        self.calls: list[tuple[str, int | None]] = []

    def set_method(self, method: str) -> None:
        self.method = method

    def set_budget(self, visual_token_budget: int | None) -> None:
        self.budget = visual_token_budget

    def run_facts(self) -> ModelFacts:
        return ModelFacts(
            method_label=self.method,
            method_notes=[],
            method_resolved={},
            model="fake",
            model_revision=self.revision,
            family="fake",
            family_settings={},
            frame_policy=FramePolicy(rule="uniform", num_frames=8, fps=None),
            shown={},
            visual_token_budget=self.budget,
            min_pixels=None,
            max_pixels=None,
            position_rule="original",
            system_prompt=None,
            gen_kwargs={},
            generation={},
            quantization=None,
            dtype="float32",
            attention_kernel=None,
            replayed=0,
            computed=0,
            decoder="auto",
            device="cpu",
            gpu=None,
            packages={"typer": "0"} if self.revision == "old packages" else {},
        )

    def open_journal(self, folder: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def close_journal(self) -> None:
        """Nothing is journalled."""

    def reload_journal(self) -> None:
        """Nothing is journalled."""

    def forget_answers(self, requests: Any, methods: Any) -> None:
        """Nothing is journalled."""

    def answer_all(self, requests: Any, methods: Any) -> Any:
        """Answers are made when they are asked for."""
        return iter(())

    def clean(self) -> None:
        """Keep everything for the next method."""

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        if self.method in self.crash:
            raise self.crash[self.method]
        self.calls.append((self.method, self.budget))
        return [self._answer(request.args[0], self._video(request)) for request in requests]

    def _video(self, request: Instance) -> str:
        *_, doc_id, task, split = request.args
        return str(self.task_dict[task][split][doc_id].get("video", ""))

    def _answer(self, asked: str, video: str) -> GenerationResult:
        error = next((e for text, e in self.broken.items() if text in asked), None)
        if video and video.endswith(self.lost):
            error = "no such file or folder"
        flags = next((f for text, f in self.flags.items() if text in asked), ())
        return GenerationResult("" if error else self.answer, Counts(error=error, flags=flags))

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        raise AssertionError

    def generate_until_multi_round(self, requests: list[Instance]) -> list[Any]:
        raise AssertionError
