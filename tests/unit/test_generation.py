"""Which generation settings take effect: every field of the installed transformers, by name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import transformers

from tempeval.engine.generation import generation_of, recorded
from tempeval.errors import InvalidSetting, UnknownName, UnsupportedModel
from tempeval.families import generation as table
from tempeval.families.generation import KNOWN, check_generation, check_generation_file, end_ids

#: A value of each field that is not its default; for those that need a type of their own.
ODD = {
    "watermarking_config": {"greenlist_ratio": 0.5},
    "compile_config": {"mode": "default"},
    "bad_words_ids": [[5, 6]],
    "force_words_ids": [[5]],
    "suppress_tokens": [3],
    "begin_suppress_tokens": [3],
    "sequence_bias": [[[5, 6], -3.0]],
    "exponential_decay_length_penalty": [2, 1.1],
    "stop_strings": ["x"],
    "cache_implementation": "static",
    "early_stopping": True,
    "num_assistant_tokens_schedule": "heuristic",
    "speculation_type": "eagle",
    "dola_layers": "high",
}


def model_with(tokenizer_end=2, **settings):
    config = transformers.GenerationConfig()
    for name, value in {"eos_token_id": 7, **settings}.items():
        setattr(config, name, value)
    tokenizer = SimpleNamespace(
        eos_token_id=tokenizer_end, pad_token_id=None, get_added_vocab=lambda: {"<|im_end|>": 9}
    )
    model = SimpleNamespace(generation_config=config)
    return SimpleNamespace(model=model, tokenizer=tokenizer, pretrained="some/model")


def test_every_field_of_the_installed_transformers_is_decided_on():
    fields = set(vars(transformers.GenerationConfig()))
    assert fields - set(KNOWN) == set()
    parts = (table.OBEYED, table.SAMPLING, table.BEAMS, table.DECIDED, table.REFUSED)
    assert sum(map(len, parts)) == len(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_checkpoint_s_setting_is_obeyed_set_aside_or_refused(name):
    value = ODD.get(name, 3)
    family = model_with(**{name: value})
    if name in table.REFUSED:
        with pytest.raises(UnsupportedModel, match=f"sets {name}="):
            generation_of(family, {})
        generation_of(model_with(**{name: KNOWN[name]}), {})
        return
    plain = generation_of(model_with(), {})
    found = generation_of(family, {})
    drawn = generation_of(family, {"do_sample": True})
    if name in table.OBEYED and name != "stop_strings":
        assert found.record()[name] == value
    elif name == "stop_strings":
        assert found.stops == ("x",)
    elif name in table.SAMPLING:
        assert found.arguments == plain.arguments
        assert drawn.record()[name] == value
        assert found.record()["not_used"] == {name: value}
    else:
        assert found.arguments == plain.arguments
        if name in ("num_beams", "num_return_sequences", "cache_implementation"):
            assert found.record()["not_used"] == {name: value}
    json.dumps(found.record(), allow_nan=False)  # raises for what a record cannot hold


def test_a_setting_that_only_a_newer_transformers_has_is_refused(monkeypatch):
    monkeypatch.setattr(transformers.GenerationConfig, "brand_new", None, raising=False)
    check_generation({"brand_new": None}, "here")
    with pytest.raises(UnsupportedModel, match=r"here sets brand_new=1.*upgrade tempeval"):
        check_generation({"brand_new": 1}, "here")


def test_the_file_is_checked_before_weights_are_loaded(tmp_path, caplog):
    check_generation_file(tmp_path)  # there need not be one
    path = tmp_path / "generation_config.json"
    path.write_text('{"guidance_scale": 1.5}')
    with pytest.raises(UnsupportedModel, match=r"generation_config.json sets guidance_scale=1.5"):
        check_generation_file(tmp_path)
    path.write_text('{"num_return_sequences": 2, "chat_format": "chatml"}')
    check_generation_file(tmp_path)
    assert "nothing reads chat_format" in caplog.text
    for broken in ("[", "[]"):
        path.write_text(broken)
        with pytest.raises(UnsupportedModel, match="generation_config"):
            check_generation_file(tmp_path)


def test_an_answer_ends_at_the_checkpoint_s_ids_and_at_the_tokenizer_s():
    for own, expected in (([7, 8], [7, 8, 2]), (7, [7, 2]), (None, [2]), (2, [2])):
        family = model_with(eos_token_id=own)
        assert end_ids(family.model, family.tokenizer) == expected
        assert generation_of(family, {}).end_ids == tuple(expected)
    none = model_with(tokenizer_end=None, eos_token_id=None)
    assert end_ids(none.model, none.tokenizer) == []


def test_a_stop_string_that_is_a_token_of_its_own_ends_by_its_id():
    found = generation_of(model_with(), {"until": ["<|im_end|>", "\n", ""]})
    assert found.end_ids == (7, 2, 9)
    assert found.stops == ("<|im_end|>", "\n")
    with pytest.raises(InvalidSetting, match="until"):
        generation_of(model_with(), {"until": [3]})


@pytest.mark.parametrize(
    ("asked", "own", "arguments"),
    [
        ({}, {}, {"do_sample": False, "max_new_tokens": 128, "num_beams": 1}),
        ({"max_gen_toks": 9}, {"max_new_tokens": 3}, {"max_new_tokens": 9}),
        ({"repetition_penalty": 2.0}, {"repetition_penalty": 1.05}, {"repetition_penalty": 2.0}),
        ({"repetition_penalty": 1.0}, {"repetition_penalty": 1.05}, {"repetition_penalty": None}),
        ({"temperature": 0}, {"do_sample": True, "top_k": 1}, {"do_sample": False, "top_k": None}),
        ({"temperature": 5}, {"top_k": 7}, {"temperature": 5, "top_k": 7, "top_p": 1.0}),
        ({"do_sample": True}, {}, {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}),
        ({"do_sample": True, "top_k": 0}, {"top_k": 1}, {"top_k": 0}),
        ({"do_sample": True}, {"min_p": 0.1}, {"min_p": 0.1}),
        ({}, {"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 1, "length_penalty": None}),
        ({"num_beams": 3}, {"length_penalty": 2.0}, {"num_beams": 3, "length_penalty": 2.0}),
        ({"image_aspect_ratio": "pad", "use_cache": True}, {}, {"use_cache": None}),
    ],
)
def test_what_a_request_and_a_checkpoint_make_together(asked, own, arguments):
    found = generation_of(model_with(**own), asked).arguments
    assert {name: found.get(name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("asked", "own", "named"),
    [
        ({"do_sample": True, "temperature": 5}, {"top_k": 1}, "the checkpoint's top_k=1"),
        ({"do_sample": True}, {"temperature": 1e-6}, "the checkpoint's temperature=1e-06"),
        ({"temperature": 0.7}, {"top_p": 0.001}, "the checkpoint's top_p=0.001"),
        ({"do_sample": True, "top_k": 1}, {}, "the request's top_k=1"),
        ({"do_sample": True, "temperature": 5, "top_k": 0}, {"top_k": 1}, None),
        ({"temperature": 0}, {"top_k": 1}, None),
        ({"temperature": 0.7}, {}, None),
    ],
)
def test_sampling_that_cannot_vary_is_said(asked, own, named):
    warnings = generation_of(model_with(**own), asked).warnings
    assert [named in warning for warning in warnings] == ([True] if named else [])


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"max_new_token": 3}, UnknownName, "did you mean 'max_new_tokens'"),
        ({"num_return_sequences": 2}, InvalidSetting, "a question has one answer"),
        ({"max_length": 20}, InvalidSetting, "give max_new_tokens"),
        ({"guidance_scale": 2}, InvalidSetting, "guidance_scale=2"),
        ({"return_dict_in_generate": True}, InvalidSetting, "return_dict_in_generate"),
        ({"use_cache": False}, InvalidSetting, "use_cache"),
    ],
)
def test_arguments_of_a_request_are_refused_by_name(asked, error, message):
    with pytest.raises(error, match=message):
        generation_of(model_with(), asked)


def test_a_record_says_what_tasks_share_and_where_they_differ():
    family = model_with(repetition_penalty=1.05)
    found = {
        "one": generation_of(family, {"max_new_tokens": 4}),
        "two": generation_of(family, {"max_new_tokens": 8, "until": "\n"}),
    }
    record = recorded(found)
    assert record["repetition_penalty"] == 1.05
    assert record["eos_token_id"] == [7, 2]
    assert "max_new_tokens" not in record
    assert record["by_task"] == {
        "one": {"max_new_tokens": 4, "until": []},
        "two": {"max_new_tokens": 8, "until": ["\n"]},
    }
    assert recorded({"one": found["one"]})["max_new_tokens"] == 4
    assert recorded({}) == {}
