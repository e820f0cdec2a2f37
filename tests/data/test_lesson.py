"""Conversations: of what a chat template writes, the assistant's turns are learned."""

import copy
import json

import pytest
import torch

from osmose.data.corpus import load_text
from osmose.data.lesson import lesson
from osmose.data.text import document
from osmose.errors import UserError

IGNORED = -100
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}.\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "two plus two?"},
    {"role": "assistant", "content": "it is four "},
    {"role": "user", "content": "sure?"},
    {"role": "assistant", "content": "four, yes"},
]


@pytest.fixture
def speaker(bytewise):
    made = copy.deepcopy(bytewise)
    made.chat_template = TEMPLATE
    return made


def conversation(messages=TALK):
    return document({"messages": messages}, "a.jsonl, line 1")


def test_of_a_conversation_the_assistants_turns_are_learned(speaker):
    found = lesson(conversation(), speaker)
    assert (
        found.text
        == "<system>be kind.\n<user>two plus two?.\n<assistant>it is four.\n<user>sure?.\n<assistant>four, yes.\n"
    )
    assert found.learned_text == ["it is four.\n", "four, yes.\n"]
    assert found.text[: found.ending].endswith("four, yes")
    assert not found.framed


def test_as_blocks_and_as_passages(speaker, tmp_path):
    for part in ("train", "test"):
        (tmp_path / f"{part}.jsonl").write_text(json.dumps({"messages": TALK}))
    corpus = load_text(f"text:{tmp_path}", speaker, length=160, heldout=0)
    whole = corpus.train.inputs.read(torch.arange(1))[0, 0]
    text = lesson(conversation(), speaker).text
    assert speaker.decode(whole.tolist()).startswith(text + "<end>")  # the template's own tokens, then padding
    labels = corpus.train.labels[0]
    assert speaker.decode(labels[labels != IGNORED].tolist()) == "it is four.\nfour, yes.\n"
    passages = corpus.test()
    labels = passages.split.labels
    assert speaker.decode(labels[labels != IGNORED].tolist()) == "it is four.\nfour, yes.\n"
    assert speaker.decode(labels[passages.last_word == 0].tolist()) == "yes"
    assert speaker.decode(passages.split.inputs.read(torch.arange(1))[0, 0].tolist()).startswith(text)
    assert (passages.words, passages.bytes) == (5, len("it is four.\nfour, yes.\n"))


def test_a_tokenizer_without_a_template(bytewise):
    with pytest.raises(
        UserError, match="a.jsonl, line 1 is a conversation, and the model's tokenizer has no chat template"
    ):
        lesson(conversation(), bytewise)


def test_a_template_that_writes_what_was_said_anew(speaker):
    speaker.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(
        UserError, match="line 1: the tokenizer's chat template writes a message differently once another"
    ):
        lesson(conversation(), speaker)


def test_a_template_that_refuses(speaker):
    speaker.chat_template = "{{ raise_exception('roles must take turns') }}"
    with pytest.raises(
        UserError, match="line 1: the tokenizer's chat template refuses the conversation: roles must take"
    ):
        lesson(conversation(TALK[1:]), speaker)


def test_an_assistant_that_begins_and_one_that_says_nothing(speaker):
    talk = [
        {"role": "assistant", "content": " welcome"},
        {"role": "user", "content": "hm"},
        {"role": "assistant", "content": " "},
        {"role": "user", "content": "well?"},
        {"role": "assistant", "content": "\nyes"},
    ]
    found = lesson(conversation(talk), speaker)
    assert found.learned_text == ["welcome.\n", "yes.\n"]
    assert found.text[: found.ending].endswith("<assistant>yes")


def test_a_prompt_to_answer_that_holds_more_than_an_answer(speaker):
    speaker.chat_template = TEMPLATE.replace("<assistant>", "<assistant>think:")
    assert lesson(conversation(), speaker).learned_text == ["<assistant>it is four.\n", "<assistant>four, yes.\n"]


def test_a_long_conversation_keeps_its_question(speaker, tmp_path):
    """In parts: the first has the question, and every token that is to be learned is scored once."""
    for part in ("train", "test"):
        (tmp_path / f"{part}.jsonl").write_text(json.dumps({"messages": TALK}))
    passages = load_text(f"text:{tmp_path}", speaker, length=64, heldout=0).test()
    blocks, labels = passages.split.inputs.read(torch.arange(len(passages.split)))[:, 0], passages.split.labels
    assert len(blocks) > 1
    assert speaker.decode(blocks[0].tolist()).startswith("<system>be kind.\n<user>two plus two?")
    assert speaker.decode(labels[labels != IGNORED].tolist()) == "it is four.\nfour, yes.\n"


def test_calls_of_tools_are_refused():
    talk = [*TALK[:2], {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]}]
    with pytest.raises(UserError, match="line 1 calls tools, which are not learned: leave it out"):
        conversation(talk)
