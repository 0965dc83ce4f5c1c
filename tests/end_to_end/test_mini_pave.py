"""The patches that ship: they fit their base, say how they were made, and hear what they should."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tempeval.engine.inference import Inference
from tempeval.engine.question import Question
from tempeval.errors import UnknownName
from tempeval.families.base import LoadOptions
from tempeval.families.registry import family_class, family_of
from tempeval.families.revision import revision_of
from tempeval.methods.pave_checkpoint import read_pave
from tempeval.methods.registry import parse_chain
from tempeval.mini.paths import CHECKPOINTS, checkpoint, located, located_adapter
from tempeval.mini.side import side_suite
from tempeval.mini.side_render import rendered_test_split
from tempeval.model_wrappers.requests import visuals_of
from tempeval.pave.config import read_config
from tempeval.tasks.answers import match_choice
from tempeval.tasks.mini import ask, doc_to_text
from tempeval.video.clip import Sampling, VideoPath

SUITES = ("audio", "highfps")
LARGEST = 3_000_000


@pytest.mark.parametrize("suite", SUITES)
def test_a_shipped_patch_says_how_it_was_made(suite: str) -> None:
    folder = Path(located_adapter(f"mini:{suite}"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST
    weights = read_pave(folder)
    config = read_config(folder / "train.yaml")
    record = json.loads((folder / "training.json").read_text())
    assert record["config_digest"] == config.digest() == weights.metadata["config_digest"]
    assert record["base_revision"] == revision_of(Path(located(config.base.pretrained)))
    split = side_suite(suite).train(config.data.clips, config.data.seed)
    assert record["data_digest"] == split.digest
    assert record["steps"] == config.training.steps


def test_names_of_shipped_patches() -> None:
    assert located_adapter("some/folder") == "some/folder"
    assert Path(located_adapter("mini:audio")) == CHECKPOINTS / "pave_audio"
    with pytest.raises(UnknownName, match="did you mean 'mini:audio'"):
        located_adapter("mini:adio")
    with pytest.raises(UnknownName, match="mini checkpoint") as caught:
        checkpoint("pave_audio")  # a patch is no base model
    assert "pave" not in str(caught.value).partition("Known:")[2]


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_a_shipped_patch_hears(suite: str) -> None:
    adapter = f"adapter=mini:{suite}"
    found = accuracies(suite, ["baseline", f"pave[{adapter}]", f"pave[{adapter};shuffle=0]"])
    base, own, shuffled = found.values()
    assert own > base + 0.25
    assert own > shuffled + 0.25
    chance = sum(kind.chance for kind in side_suite(suite).kinds) / len(side_suite(suite).kinds)
    assert abs(shuffled - chance) < 0.08
    card = (Path(located_adapter(f"mini:{suite}")) / "README.md").read_text()
    for chain, value in found.items():
        row = re.search(rf"^\| `{re.escape(chain)}` \|.* (\d+\.\d) \|$", card, re.MULTILINE)
        assert row, chain
        assert abs(float(row[1]) - 100 * value) < 1.5, chain


def accuracies(suite: str, chains: list[str]) -> dict[str, float]:
    """Accuracy of chains over all questions about a suite's test clips."""
    folder = rendered_test_split(suite)
    docs = side_suite(suite).test.records()
    questions = []
    for number, doc in enumerate(docs):
        messages = ask(VideoPath(str(folder / doc["video"])), doc_to_text(doc))
        wanted = {"max_new_tokens": 4, "do_sample": False}
        questions.append(Question(number, tuple(messages), visuals_of(messages), gen_kwargs=wanted))
    base = located("mini")
    family = family_class(family_of(base)).load(base, LoadOptions())
    inference = Inference(family, Sampling(num_frames=8))
    parsed = {chain: parse_chain(chain) for chain in chains}
    right = dict.fromkeys(chains, 0)
    names = {chain: name for name, chain in parsed.items()}
    for answered in inference.run(inference.plan(questions), list(parsed.values())):
        doc, answer = docs[answered.question.number], answered.outcome.answer
        assert answer is not None, answered.outcome.usage.error
        right[names[answered.chain]] += match_choice(answer.text, doc["choices"]) == doc["answer"]
    return {chain: count / len(docs) for chain, count in right.items()}
