"""Documents from files, and every way in which they are wrong."""

import json

import pytest

from osmose.data.text import Document, read_documents, text_files
from osmose.errors import UserError

LINES = [{"text": "one"}, {"prompt": "two plus two is", "completion": " four"}]


def test_all_kinds_of_files_in_the_order_of_their_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "b.txt").write_text("a whole file\n\nof lines")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.jsonl").write_text("\n".join(map(json.dumps, LINES)) + "\n\n")
    parquet.write_table(pyarrow.table({"text": ["é", "日本"], "other": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "ignored.csv").write_text("x")
    found = [one for file in text_files(tmp_path) for one in read_documents(file)]
    assert [(one.prompt, one.text) for one in found] == [
        ("", "é"), ("", "日本"), ("", "a whole file\n\nof lines"), ("", "one"), ("two plus two is", " four"),
    ]  # fmt: skip
    assert found[1].place == f"{tmp_path}/a.parquet, row 2"
    assert found[4].place == f"{tmp_path}/deeper/c.jsonl, line 2"


def test_what_runs_write_is_no_text(tmp_path):
    for name in (
        "a.txt",
        "run/recipe.yaml",
        "run/metrics.jsonl",
        "run/deeper/b.txt",
        "cache/text-1/blocks.i32",
        "cache/text-1/about.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert text_files(tmp_path) == [tmp_path / "a.txt"]


def test_one_file_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert list(read_documents(tmp_path / "a.txt")) == [Document("hello", "", f"{tmp_path}/a.txt")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"abc\xff", "a.txt is not UTF-8: byte 3 is 0xff; convert it, for example with iconv"),
        ("a.txt", b"\xef\xbb\xbfabc\xff", "a.txt is not UTF-8: byte 6 is 0xff"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}', "a.jsonl is not UTF-8: byte 24 is 0xff; convert it"),
        ("a.txt", b" \n", "a.txt is empty: leave it out"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ""}', "a.jsonl, line 2 is empty: leave it out"),
        ("a.jsonl", b'{"text": "x"', "a.jsonl, line 1 is not JSON"),
        (
            "a.jsonl",
            b'{"body": "x"}',
            "a.jsonl, line 1 has no 'text', or 'prompt' and 'completion', or 'messages': name its fields so",
        ),
        ("a.jsonl", b'["x"]', "a.jsonl, line 1 has no 'text'"),
        ("a.jsonl", b'{"text": 3}', "a.jsonl, line 1: 'text', 'prompt' and 'completion' must be texts"),
        ("a.jsonl", b'{"prompt": "x"}', "a.jsonl, line 1 has no 'text'"),
        (
            "a.jsonl",
            b'{"messages": ["hello"]}',
            "line 1: 'messages' must be a list of objects with the texts 'role' and",
        ),
        (
            "a.jsonl",
            b'{"messages": [{"role": "user", "content": "x"}]}',
            "line 1 has no message of the role 'assistant'",
        ),
        ("a.parquet", b"not parquet", "cannot read .*a.parquet: "),
        ("a.csv", b"x", "a.csv' is no text: give a folder or file of .txt, .jsonl, .json, .parquet"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        [one for file in text_files(tmp_path / name) for one in read_documents(file)]
    assert "\n" not in str(error.value)


def test_folders_and_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="holds no text: give a folder or file of"):
        text_files(tmp_path)
    with pytest.raises(UserError, match="cannot read .*nowhere.txt: No such file"):
        list(read_documents(tmp_path / "nowhere.txt"))


def test_a_separator_divides_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("# one\n\nmore\n\n\n\ntwo\n")
    found = list(read_documents(tmp_path / "a.txt", "\n\n"))
    assert [one.text for one in found] == ["# one", "more", "two\n"]
    assert found[2].place.endswith("a.txt, document 4")
