"""TempCompass: clusters of joined videos, captioning's options, the rules' corners, and judges."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.tempcompass import TEMPCOMPASS, cluster_of, source_clips
from tempeval.run.rescore import rescore
from tempeval.tasks import tempcompass
from tempeval.tasks.judge import Judge, JudgeFailed, JudgeMissing, named_judge
from tempeval.tasks.multiple_choice import Parsed
from tempeval.tasks.tempcompass_captioning import judge_rating, process_results

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parents[1] / "reference" / "metrics" / "tempcompass"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
#: As in the official file: pieces of information are dictionaries, in text.
QUESTION = (
    "Find the information that fits and write a caption.\n"
    "Information A: {'subject': 'man', 'action': 'dribbling'}\n"
    "Information B: {'subject': 'man', 'action': 'dunking'}\n"
    "Generated Caption:"
)
MATCHING = "Which fits?\nOption 1: The man sits: down.\nOption 2: The man stands up."


class TestClusters:
    @pytest.mark.parametrize(
        ("video", "sources"),
        [
            ("1059718130", ("1059718130",)),
            ("1059718130_reverse", ("1059718130",)),
            ("1059718130_double", ("1059718130",)),
            ("1059718130_concat_0", ("1059718130",)),
            ("1059718130_fast_2x", ("1059718130",)),
            ("1059718130_slow_0_5x", ("1059718130",)),
            ("1059072773_1059718130_2", ("1059072773", "1059718130")),
            ("1059072773_1059718130_2_reverse", ("1059072773", "1059718130")),
            ("x", ("x",)),
        ],
    )
    def test_sources_of_a_video(self, video: str, sources: tuple[str, ...]) -> None:
        assert source_clips(video) == sources

    @pytest.mark.parametrize(
        ("video", "expected"),
        [
            ("1051000", "1051000"),
            ("1051000_1020000_0", "1051000"),
            ("1051000_fast_2x", "1051000"),
            ("1020000", "1020000"),
            # Official pairs: 1089201973 and 1080990179 are both joined with 1086820415.
            ("1086820415_concat_1", "1080990179"),
            ("1089201973_1086820415_2", "1080990179"),
            ("1089201973_reverse", "1080990179"),
            ("1080990179", "1080990179"),
        ],
    )
    def test_the_cluster_comes_from_the_id_alone(self, video: str, expected: str) -> None:
        assert cluster_of(video) == f"tempcompass/{expected}"

    @pytest.mark.parametrize("path", sorted(GOLDEN.glob("annotations/questions/*.json")))
    def test_a_part_of_a_file_has_the_clusters_of_the_whole(
        self, tmp_path: Path, path: Path
    ) -> None:
        whole = {d["video_id"]: d["cluster"] for d in TEMPCOMPASS.read(path.parents[1], path.stem)}
        shutil.copytree(path.parent, tmp_path / "questions")
        videos = list(json.loads(path.read_text("utf-8")).items())
        for rows in (videos[::2], videos[1::2]):
            (tmp_path / "questions" / path.name).write_text(json.dumps(dict(rows)))
            docs = list(TEMPCOMPASS.read(tmp_path, path.stem))
            assert docs
            assert all(whole[doc["video_id"]] == doc["cluster"] for doc in docs)


class TestReader:
    def made(self, root: Path, split: str, question: str, answer: str) -> Path:
        (root / "questions").mkdir(exist_ok=True)
        items = {"123456": {"action": [{"question": question, "answer": answer}]}}
        (root / "questions" / f"{split}.json").write_text(json.dumps(items))
        return root

    def test_the_letter_of_a_caption_counts_and_the_judge_has_its_own_question(
        self, tmp_path: Path
    ) -> None:
        self.made(tmp_path, "captioning", QUESTION, "B. dunking")
        with pytest.raises(MissingData, match="multi-choice"):
            TEMPCOMPASS.annotations(tmp_path, "captioning")
        self.made(tmp_path, "multi-choice", "What?\nA. dunking\nB. dribbling", "A. dunking")
        (doc,) = TEMPCOMPASS.read(tmp_path, "captioning")
        assert (doc["answer_index"], doc["judge_answer"]) == (1, "A. dunking")
        assert doc["fine"] == ""  # no meta_info.json: no fine type is made up
        text = tempcompass.captioning_mcq_text(doc)
        assert "Information B: {'subject': 'man', 'action': 'dunking'}" in text
        assert "Generated Caption" not in text
        assert tempcompass.process_captioning_mcq(doc, ["B"])["avg"]["score"] == 1.0

    def test_a_caption_without_a_question_for_the_judge_is_named(self, tmp_path: Path) -> None:
        self.made(tmp_path, "captioning", QUESTION, "B. dunking")
        (tmp_path / "questions" / "multi-choice.json").write_text("{}")
        with pytest.raises(BadData, match="123456"):
            list(TEMPCOMPASS.read(tmp_path, "captioning"))

    def test_official_averages_by_aspect_and_fine_type(self) -> None:
        texts = json.loads((GOLDEN / "predictions.json").read_text("utf-8"))
        names = {f"fine/{official}": ours for official, ours in tempcompass.FINE.items()}
        for task, known in EXPECTED["metrics"]["official_rule_based_disable_llm"].items():
            ours = f"tempeval_tempcompass_{task.replace('-', '_')}"
            scores = rescore(ours, texts, GOLDEN / "annotations").metrics
            for name, value in known.items():
                if name != "n":
                    assert scores[names.get(name, name)] == pytest.approx(value, abs=2e-4), name


class TestRules:
    @pytest.mark.parametrize(
        ("text", "rating"),
        [
            ("Option 2", True),
            ("Option 2.", True),
            ("2", True),
            ("B", None),
            ("(2) The man stands up.", True),
            ("The man sits", False),  # a sentence ends at a second ": "
            ("The man sits: down.", None),
            ("option 2", None),
            ("2:", None),
            ("", None),
        ],
    )
    def test_official_caption_matching(self, text: str, rating: bool | None) -> None:
        answer = "Option 2: The man stands up."
        assert tempcompass.official_caption_matching(text, answer, MATCHING) is rating

    @pytest.mark.parametrize(
        ("text", "index"),
        [
            ("option 2", 1),
            ("2)", 1),
            ("The better one is Option 1.", 0),
            ("The man stands up", 1),
            ("Option 1 or option 2", None),
            ("neither of them", None),
        ],
    )
    def test_the_strict_reader_of_captions(self, text: str, index: int | None) -> None:
        doc = {
            **dict.fromkeys(("sample_id", "video_id", "cluster", "content_hash", "category"), "x"),
            "question": MATCHING,
            "answers": ["Option 2: The man stands up."],
            "choices": ["The man sits: down.", "The man stands up."],
            "answer_index": 1,
            "fine": "",
        }
        found = tempcompass.process_caption_matching(doc, [text])
        assert found["parsed"] == (None if index is None else "AB"[index])

    @pytest.mark.parametrize(
        ("text", "index", "status"),
        [
            ("It is yes", 0, "parsed"),
            ("The answer is: No.", 1, "parsed"),
            ("There is no ball", None, "unparsed"),
            ("not sure", None, "unparsed"),
            ("Yes and no", None, "ambiguous"),
        ],
    )
    def test_the_strict_reader_of_yes_and_no(
        self, text: str, index: int | None, status: str
    ) -> None:
        assert tempcompass.strict_yes_no(text) == Parsed(index, status)


class TestJudge:
    def test_official_ratings_of_canned_replies(self) -> None:
        replies = json.loads((GOLDEN / "judge_responses.json").read_text("utf-8"))
        docs = {d["sample_id"]: d for d in TEMPCOMPASS.read(GOLDEN / "annotations", "captioning")}
        ratings = {name: judge_rating(reply, docs[name]["judge_answer"]) for name, reply in
                   replies.items()}  # fmt: skip
        known = EXPECTED["metrics"]
        official = known["official_captioning_parser_on_canned_judge"]["avg"]
        strict = known["strict_captioning_judge_failure_is_zero"]["avg"]
        assert sum(ratings.values()) / len(ratings) * 100 == pytest.approx(official, abs=2e-4)
        kept = sum(max(rating, 0) for rating in ratings.values()) / len(ratings) * 100
        assert kept == pytest.approx(strict, abs=2e-4)

    def test_a_command_judges_the_whole_task(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = json.loads((GOLDEN / "predictions.json").read_text("utf-8"))
        script = tmp_path / "judge.py"
        script.write_text(
            "import sys\n"
            "prompt = sys.stdin.read()\n"
            "said = prompt.split('Video description: ')[1].splitlines()[0]\n"
            "print('' if 'growing' in said else 'Reasoning: so.\\nAnswer: B. it')\n"
        )
        monkeypatch.setenv("TEMPEVAL_JUDGE", f"{sys.executable} {script}")
        task = "tempeval_tempcompass_captioning"
        scores = rescore(task, texts, GOLDEN / "annotations").metrics
        docs = list(TEMPCOMPASS.read(GOLDEN / "annotations", "captioning"))
        growing = ["growing" in texts[doc["sample_id"]] for doc in docs]
        right = [doc["judge_answer"].startswith("B.") for doc in docs]
        kept = sum(r and not g for r, g in zip(right, growing, strict=True))
        assert scores["avg"] == pytest.approx(100 * kept / 22, abs=1e-4)
        assert scores["avg_official"] == pytest.approx(100 * (kept - sum(growing)) / 22, abs=1e-4)
        assert scores["parse_failure"] == pytest.approx(100 * sum(growing) / 22, abs=1e-4)

    def test_without_a_judge_the_task_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TEMPEVAL_JUDGE", raising=False)
        with pytest.raises(JudgeMissing, match="TEMPEVAL_JUDGE"):
            rescore("tempeval_tempcompass_captioning", {}, GOLDEN / "annotations")

    def test_an_empty_caption_is_wrong_and_not_judged(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEMPEVAL_JUDGE", "false")  # a command that would fail
        doc = next(iter(TEMPCOMPASS.read(GOLDEN / "annotations", "captioning")))
        found = process_results(doc, [""])
        assert (found["avg_official"], found["parse_status"]) == (0.0, "empty")

    def test_a_failing_command_costs_its_sample_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEMPEVAL_JUDGE", "false")
        doc = next(iter(TEMPCOMPASS.read(GOLDEN / "annotations", "captioning")))
        found = process_results(doc, ["a caption"])
        assert (found["avg"]["score"], found["avg_official"]) == (0.0, -1.0)
        assert found["parse_failure"] == 1.0

    def test_an_endpoint_needs_a_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TEMPEVAL_JUDGE", "http://localhost:1/v1/chat/completions")
        monkeypatch.delenv("TEMPEVAL_JUDGE_MODEL", raising=False)
        with pytest.raises(JudgeMissing, match="TEMPEVAL_JUDGE_MODEL"):
            named_judge()

    def test_an_endpoint(self, endpoint: tuple[str, list[Any]]) -> None:
        url, asked = endpoint
        assert Judge(url, "some-model", "secret").ask("Which?") == "Answer: A. it"
        body, authorization = asked[0]
        assert (body["model"], authorization) == ("some-model", "Bearer secret")
        assert body["messages"][0]["content"] == "Which?"
        with pytest.raises(JudgeFailed, match="403"):
            Judge(url, "refused").ask("Which?")
        assert len(asked) == 2  # a refusal is not tried again

    def test_the_key_and_arguments_are_never_in_the_name(self) -> None:
        assert Judge("http://x/v1", "m", "secret").name == "http://x/v1 m"
        assert Judge("ask --key secret").name == "ask"


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body, self.headers["Authorization"]))
            self.send_response(403 if body["model"] == "refused" else 200)
            self.end_headers()
            reply = {"choices": [{"message": {"content": " Answer: A. it\n"}}]}
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions", asked
    server.shutdown()
    thread.join()
    server.server_close()
