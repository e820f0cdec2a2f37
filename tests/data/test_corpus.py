"""Text in parts and blocks: nothing is scored twice or left out, and what is wrong is named."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from osmose.data.corpus import load_passages, load_text
from osmose.data.lesson import lesson
from osmose.errors import UserError

pre_tokenizers = pytest.importorskip("tokenizers.pre_tokenizers")

IGNORED = -100


def write(folder, name, *texts):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(json.dumps(one if isinstance(one, dict) else {"text": one}) for one in texts))


def decoded(tokenizer, passages):
    """The scored text, in order."""
    labels = passages.split.labels.flatten()
    return tokenizer.decode(labels[labels != IGNORED].tolist())


def test_every_token_of_every_document_is_scored_once(bytewise, tmp_path):
    texts = ["short", "a much longer document that is cut into parts", "é and 日本", "the end"]
    write(tmp_path, "train.jsonl", "x", "y")
    write(tmp_path, "test.jsonl", *texts)
    passages = load_text(f"text:{tmp_path}", bytewise, length=9, heldout=0).test()
    assert decoded(bytewise, passages) == "".join(texts)
    assert passages.bytes == sum(len(text.encode()) for text in texts)
    assert passages.words == sum(len(text.split()) for text in texts)
    x = passages.split.inputs.read(torch.arange(len(passages.split)))
    counted = passages.split.labels != IGNORED
    assert (x[:, 0][:, 1:][counted[:, :-1]] == passages.split.labels[counted]).all()
    assert (x[:, 1][:, 1:] == x[:, 1][:, :-1])[counted[:, :-1]].all()  # from the same document


def test_the_last_word_of_each_document(bytewise, tmp_path):
    write(tmp_path, "train.jsonl", "x", "y")
    write(tmp_path, "test.jsonl", "the old house.", "it is the cat's paw!", "...")
    passages = load_text(f"text:{tmp_path}", bytewise, length=64, heldout=0).test()
    labels, last = passages.split.labels, passages.last_word
    words = [bytewise.decode(labels[last == number].tolist()) for number in range(3)]
    assert words == ["house", "paw", ""]


def test_of_a_prompt_nothing_is_scored_and_its_end_is_kept(bytewise, tmp_path):
    write(tmp_path, "train.jsonl", "x", "y")
    write(tmp_path, "test.jsonl", {"prompt": "two plus two makes exactly", "completion": " four"})
    passages = load_text(f"text:{tmp_path}", bytewise, length=16, heldout=0).test()
    assert decoded(bytewise, passages) == " four"
    x = passages.split.inputs.read(torch.arange(1))[0, 0]
    assert bytewise.decode(x.tolist()) == "<start>es exactly four"


def test_training_blocks_hold_start_text_and_end(bytewise, tmp_path):
    write(tmp_path, "train.jsonl", "abc", {"prompt": "de", "completion": "fg"})
    write(tmp_path, "test.jsonl", "z")
    train = load_text(f"text:{tmp_path}", bytewise, length=12, heldout=0).train
    x = train.inputs.read(torch.arange(1))[0]
    assert bytewise.decode(x[0].tolist()) == "<start>abc<end><start>defg<end><end>"
    labels = train.labels[0]
    assert bytewise.decode(labels[labels != IGNORED].tolist()) == "abc<end>fg<end>"


def test_parts_are_split_by_document_and_stay_the_same(bytewise, prose):
    whole = load_text(prose, bytewise, length=24, heldout=0.1, test=0.1)
    assert (whole.heldout.documents, whole.test().documents) == (5, 6)
    half = load_text(prose, bytewise, length=24, heldout=0.1, test=0.1, fraction=0.5)
    assert len(half.train) == round(len(whole.train) / 2)
    assert half.fingerprint == whole.fingerprint
    assert torch.equal(half.train.inputs.read(torch.arange(3)), whole.train.inputs.read(half.train.index[:3]))
    other = load_text(prose, bytewise, length=24, heldout=0.1, test=0.1, split_seed=1)
    assert other.fingerprint != whole.fingerprint
    texts = [decoded(bytewise, part) for part in (whole.heldout, whole.test(), other.test())]
    assert len(set(texts)) == 3


def test_three_documents_are_enough_for_three_parts(bytewise, tmp_path):
    write(tmp_path, "a.jsonl", "one", "two", "three")
    corpus = load_text(f"text:{tmp_path}", bytewise, length=8)
    found = [corpus.train.labels.shape[0], corpus.heldout.documents, corpus.test().documents]
    assert found == [1, 1, 1]


def test_a_hub_layout_from_a_folder(bytewise, tmp_path):
    pytest.importorskip("datasets")
    write(tmp_path / "set", "train.jsonl", "one", "two", "three")
    write(tmp_path / "set", "test.jsonl", "four")
    corpus = load_text(f"text:hf:{tmp_path / 'set'}", bytewise, length=8)
    assert decoded(bytewise, corpus.test()) == "four"
    with pytest.raises(UserError, match=r"cannot load text:hf:.*nothing"):
        load_text(f"text:hf:{tmp_path / 'nothing'}", bytewise)


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (
            ["one", "two"],
            {},
            "has 2 documents for 3 parts, training, held-out and test part: give more, say by data.separator",
        ),
        (["one", {"prompt": "what", "completion": " "}, "x"], {}, "is empty: leave it out"),
        (["x", "y", "z"], {"length": 1}, "key 'data.length' is 1: set it to at least 2"),
        (["x", "y", "z"], {"fraction": 0}, "key 'data.fraction' is 0"),
        (["x", "y", "z"], {"test": 1}, "key 'data.test' is 1"),
        (
            [{"prompt": "as long as a block", "completion": "x"}] * 3,
            {"length": 8},
            "nothing of text:.* is to be learned: its documents have one token, or prompts fill their blocks",
        ),
    ],
)
@pytest.mark.parametrize("cache", [None, "cache"])
def test_mistakes(bytewise, tmp_path, texts, settings, message, cache):
    write(tmp_path / "text", "a.jsonl", *texts)
    with pytest.raises(UserError, match=message):
        load_text(f"text:{tmp_path / 'text'}", bytewise, cache=cache and str(tmp_path / cache), **settings)


def test_no_such_place(bytewise, tmp_path):
    with pytest.raises(
        UserError,
        match="there is no .*nowhere; give a file or folder, text:hf:NAME of the hub, or one of text:comedies",
    ):
        load_text(f"text:{tmp_path / 'nowhere'}", bytewise)


def test_the_packages_texts(bytewise):
    corpus = load_text("text:comedies", bytewise, length=256, fraction=0.01)
    assert decoded(bytewise, load_passages("text:comedies", bytewise, length=256)) == decoded(bytewise, corpus.test())
    assert corpus.test().documents == round(0.05 * 166)
    with pytest.raises(UserError, match="text:comedies has no part 'train' to be scored on: use test, all, or heldout"):
        load_passages("text:comedies", bytewise, "train")


def test_folders_and_files_that_are_parts(bytewise, tmp_path):
    write(tmp_path / "train", "a.jsonl", "one")
    write(tmp_path, "testament.jsonl", "two")  # no test part
    write(tmp_path, "test-00000.jsonl", "three")
    write(tmp_path / "validation", "b.jsonl", "four")
    corpus = load_text(f"text:{tmp_path}", bytewise, length=32)
    assert decoded(bytewise, corpus.test()) == "three"
    assert decoded(bytewise, corpus.heldout) == "four"
    tokens = corpus.train.inputs.read(torch.arange(len(corpus.train)))[:, 0].flatten()
    assert bytewise.decode(tokens.tolist()).startswith("<start>two<end><start>one<end>")


def test_a_text_that_is_only_a_test_part(bytewise, tmp_path):
    write(tmp_path / "only", "test.jsonl", "one", "two")
    assert decoded(bytewise, load_passages(f"text:{tmp_path / 'only'}", bytewise, length=16)) == "onetwo"
    write(tmp_path / "more", "a.jsonl", *"abcde")
    assert decoded(bytewise, load_passages(f"text:{tmp_path / 'more'}", bytewise, "all", length=16)) == "abcde"


def test_the_last_part_of_a_long_document_reads_what_fits_before_it(bytewise, tmp_path):
    write(tmp_path, "test.jsonl", "abcdefghijklm word")
    passages = load_passages(f"text:{tmp_path}", bytewise, length=9)
    x = passages.split.inputs.read(torch.arange(3))[:, 0]
    assert [bytewise.decode(row.tolist()) for row in x] == ["<start>abcdefgh", "<start>ijklm wo", "<start>klm word"]
    assert decoded(bytewise, passages) == "abcdefghijklm word"


def test_long_runs_of_letters_and_odd_line_ends(bytewise, tmp_path):
    text = "a\u2028b" + "x" * 20000
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\r\n")
    passages = load_passages(f"text:{tmp_path}", bytewise, length=512)
    assert passages.documents == 1
    assert decoded(bytewise, passages) == text


def test_empty_rows_of_the_hub_are_left_out(bytewise, tmp_path):
    pytest.importorskip("datasets")
    write(tmp_path / "set", "train.jsonl", "one", "", " ")
    write(tmp_path / "set", "test.jsonl", "", "four")
    assert load_passages(f"text:hf:{tmp_path / 'set'}", bytewise, length=8).documents == 1


def test_blocks_on_disk_are_those_in_memory(bytewise, prose, tmp_path):
    settings = {"length": 24, "heldout": 0.1, "test": 0.1, "fraction": 0.5}
    memory = load_text(prose, bytewise, **settings)
    for _ in range(2):  # written, and read
        disk = load_text(prose, bytewise, **settings, cache=str(tmp_path / "cache"))
        assert disk.fingerprint == memory.fingerprint
        assert torch.equal(disk.train.index, memory.train.index)
        assert torch.equal(disk.train.labels, memory.train.labels)
        everything = torch.arange(len(memory.train))
        assert torch.equal(disk.train.inputs.read(everything), memory.train.inputs.read(everything))
    assert decoded(bytewise, disk.test()) == decoded(bytewise, memory.test())
    assert disk.documents == memory.documents
    (about,) = (tmp_path / "cache").glob("*/about.json")
    tokens = 24 * len(disk.content[0])
    assert sum(file.stat().st_size for file in about.parent.glob("*.i32")) == 12 * tokens


def test_blocks_on_disk_are_cut_once_and_again_when_anything_changes(bytewise, tmp_path, monkeypatch):
    write(tmp_path / "text", "train.jsonl", "one", "two")
    write(tmp_path / "text", "test.jsonl", "three")
    cache = tmp_path / "cache"
    cut = []
    monkeypatch.setattr("osmose.data.corpus.lesson", lambda *given: cut.append(1) or lesson(*given))
    settings = {"length": 8, "heldout": 0, "cache": str(cache)}

    def load(**changes):
        cut.clear()
        corpus = load_text(f"text:{tmp_path / 'text'}", **{"tokenizer": bytewise, **settings, **changes})
        return len(cut), bytewise.decode(corpus.train.inputs.read(torch.arange(1))[0, 0, :4].tolist())

    assert load() == (2, "<start>one")
    assert load() == (0, "<start>one")
    assert load(length=9)[0] == 2
    abouts = {json.loads(about.read_text())["key"]["length"]: about for about in cache.glob("*/about.json")}
    whole = abouts[8].parent
    (whole / "labels.i32").write_bytes(b"cut short")
    assert load() == (2, "<start>one")
    other = copy.deepcopy(bytewise)
    other.chat_template = "{{ messages }}"
    assert load(tokenizer=other)[0] == 2
    assert load(split_seed=1)[0] == 2
    write(tmp_path / "text", "train.jsonl", "six", "seven", "eight")
    assert load() == (3, "<start>six")
    (tmp_path / "text" / "train.jsonl").rename(tmp_path / "text" / "train-1.jsonl")
    assert load() == (3, "<start>six")  # another name, the same size and time
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("cache", [None, "cache"])
def test_prompts_longer_than_a_block_are_counted(bytewise, tmp_path, cache):
    """Of blocks of 8 positions a start takes one: "what" leaves 3 for the answer, "whatever" nothing."""
    rows = [{"prompt": "what", "completion": one} for one in ("abc", "abcd", "abcdefgh")]
    write(
        tmp_path / "text",
        "train.jsonl",
        *rows,
        {"prompt": "whatever", "completion": "x"},
        "a text as long as it may be",
    )
    write(tmp_path / "text", "test.jsonl", "three")
    for _ in range(2):
        corpus = load_text(
            f"text:{tmp_path / 'text'}", bytewise, length=8, heldout=0, cache=cache and str(tmp_path / cache)
        )
        assert corpus.cut == {"shortened": 3, "emptied": 1}
    everything = "".join(decoded_blocks(bytewise, corpus))
    assert everything.count("what") == 3
    assert "whatever" not in everything


def decoded_blocks(tokenizer, corpus):
    inputs = corpus.train.inputs.read(torch.arange(len(corpus.train)))
    return [tokenizer.decode(row.tolist()) for row in inputs[:, 0]]


def test_processes_that_share_a_cache_cut_once(bytewise, prose, tmp_path):
    """Each is a process of its own; the one that comes second waits for the first and reads what it wrote."""
    script = (
        "import sys, time, osmose.data.corpus as corpus, transformers\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "cut = corpus._split\n"
        "def slow(blocks):\n    print('cut', flush=True); time.sleep(1); return cut(blocks)\n"
        "corpus._split = slow\n"
        "found = corpus.load_text(sys.argv[2], tokenizer, length=24, heldout=0, cache=sys.argv[3])\n"
        "print(found.fingerprint)\n"
    )
    bytewise.save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, "-c", script, str(tmp_path / "tokenizer"), prose, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted((process.communicate(timeout=120)[0].split() for process in running), key=len)
    assert [process.returncode for process in running] == [0, 0]
    assert [len(one) for one in said] == [1, 2]
    assert said[0] == said[1][1:] == [load_text(prose, bytewise, length=24, heldout=0).fingerprint]


def test_a_file_that_changes_while_it_is_used(bytewise, tmp_path):
    write(tmp_path, "a.jsonl", *"abcdef")
    corpus = load_text(f"text:{tmp_path}", bytewise, length=16)
    write(tmp_path, "a.jsonl", "new", *"abcdef")
    with pytest.raises(UserError, match="a.jsonl has changed since the run began: start anew with --fresh"):
        corpus.test()


def test_a_hubs_text_may_be_kept_on_disk(bytewise, tmp_path):
    pytest.importorskip("datasets")
    write(tmp_path / "set", "train.jsonl", "one", "two", "three")
    write(tmp_path / "set", "test.jsonl", "four")
    name = f"text:hf:{tmp_path / 'set'}"
    memory, *disk = (
        load_text(name, bytewise, length=8, cache=cache) for cache in (None, str(tmp_path / "c"), str(tmp_path / "c"))
    )
    assert {one.fingerprint for one in disk} == {memory.fingerprint}
    assert len(list((tmp_path / "c").glob("*/about.json"))) == 1


def test_a_tokenizer_whose_first_token_holds_no_character(bytewise, tmp_path):
    """It puts a space in front, which is a token of nothing: the document is still cut, not dropped behind its first block."""
    spaced = copy.deepcopy(bytewise)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    write(tmp_path, "train.jsonl", "abcdefghij" * 5, "x")
    write(tmp_path, "test.jsonl", "y")
    corpus = load_text(f"text:{tmp_path}", spaced, length=8, heldout=0)
    assert int((corpus.train.inputs.read(torch.arange(len(corpus.train)))[:, 1] >= 0).sum()) > 50


def test_a_cache_that_cannot_be_written(bytewise, prose, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/text-.*: File exists; choose another place"):
        load_text(prose, bytewise, length=24, cache=str(tmp_path / "file"))
