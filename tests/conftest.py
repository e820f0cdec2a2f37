"""Small data sets, short recipes, and ways to run them and read what they left."""

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

RECIPE = {
    "teacher": "fresh:zoo:cnn-xs",
    "student": "fresh:zoo:mlp-xs",
    "epochs": 2,
    "batch_size": 40,
    "threads": 1,
    "log_every": 4,
    "method": {"name": "distill", "optimiser": {"lr": 0.5}},
}


def patterns(count: int, *, classes: int, size: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images uint8 [count, size, size, channels] around one random pattern a class, and their classes in turn."""
    draws = np.random.default_rng(0)
    prototypes = draws.integers(0, 256, (classes, size, size, channels))
    noise = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = prototypes[labels] * 0.6 + noise.normal(40, 60, (count, size, size, channels))
    return np.clip(images, 0, 255).astype(np.uint8), labels


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


GENRES = ("Action", "Drama", "War")


def ratings_of(count=600, users=30, items=20):
    """Rows of a user, an item and stars that both decide, and each item's genres."""
    draws = np.random.default_rng(3)
    pairs = draws.permutation(users * items)[:count]
    taste, worth = draws.normal(size=users), draws.normal(size=items)
    rows = [(int(p // items) + 1, int(p % items) + 1) for p in pairs]
    stars = [int(np.clip(round(3 + taste[user - 1] + worth[item - 1]), 1, 5)) for user, item in rows]
    genres = {item: [name for place, name in enumerate(GENRES) if (item >> place) & 1] for item in range(1, items + 1)}
    return [(*pair, one) for pair, one in zip(rows, stars, strict=True)], genres


@pytest.fixture(autouse=True)
def no_imported_files(monkeypatch):
    """No test begins with what another one imported, which a study would name and import in its runs."""
    from osmose import user_code

    monkeypatch.setattr(user_code, "imported", [])


@pytest.fixture(scope="session")
def ratings(tmp_path_factory):
    """The name of 600 ratings of 20 items by 30 users, in RecBole's layout."""
    folder = tmp_path_factory.mktemp("ratings")
    rows, genres = ratings_of()
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *(f"{u}\t{i}\t{s}\t0" for u, i, s in rows)]
    (folder / "few.inter").write_text("\n".join(lines) + "\n")
    lines = [
        "item_id:token\tmovie_title:token_seq\tclass:token_seq",
        *(f"{i}\tThe {i}\t{' '.join(g)}" for i, g in genres.items()),
    ]
    (folder / "few.item").write_text("\n".join(lines) + "\n")
    return f"ratings:{folder}"


@pytest.fixture(scope="session")
def grey(tmp_path_factory):
    """The name of a data set of 300 training and 80 test images, 12x12 grey, 4 classes without names."""
    folder = tmp_path_factory.mktemp("grey")
    for part, count, seed in (("train", 300, 1), ("t10k", 80, 2)):
        images, labels = patterns(count, classes=4, size=12, channels=1, seed=seed)
        write_idx(folder / f"{part}-images-idx3-ubyte", images[..., 0])
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return f"idx:{folder}"


@pytest.fixture(scope="session")
def colour(tmp_path_factory):
    """The name of a data set of 48 training and 12 test images, 16x16 RGB, classes "ant", "bee" and "cat"."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("colour")
    for part, count, seed in (("train", 48, 1), ("test", 12, 2)):
        images, labels = patterns(count, classes=3, size=16, channels=3, seed=seed)
        for row, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            of_class = folder / part / ("ant", "bee", "cat")[label]
            of_class.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(of_class / f"{row:03}.png")
    return f"imagefolder:{folder}"


@pytest.fixture(scope="session")
def plain(grey):
    """Makes a short recipe on the grey data, as plain values, with changes laid over it section by section."""
    from osmose.recipe import merge

    def make(**changes):
        return merge({**copy.deepcopy(RECIPE), "data": grey}, changes)

    return make


@pytest.fixture(scope="session")
def execute(plain):
    """Runs the short recipe with changes in a folder."""
    from osmose.execution import execute as run
    from osmose.recipe import resolve

    def go(folder, *, fresh=False, modules=None, **changes):
        return run(resolve(plain(**changes)), folder, fresh=fresh, quiet=True, modules=modules)

    return go


@pytest.fixture(scope="session")
def left():
    """Reads what must be equal between two runs: metrics.jsonl's bytes and every tensor of both students."""

    def read(folder: Path) -> tuple[bytes, dict[str, bytes]]:
        tensors = {}
        for file in ("student.safetensors", "student-chosen.safetensors"):
            for name, tensor in load_file(folder / file).items():
                tensors[f"{file}/{name}"] = tensor.numpy().tobytes()
        return (folder / "metrics.jsonl").read_bytes(), tensors

    return read


@pytest.fixture(scope="session")
def metrics():
    """The lines of a run's metrics.jsonl."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def start(tmp_path):
    """Starts `python -m osmose ARGUMENTS` in the test's folder; leftovers are killed when the test ends."""
    begun = []

    def go(*arguments, launcher=("-m", "osmose"), **options):
        process = subprocess.Popen(
            [sys.executable, *launcher, *map(str, arguments)],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip
        begun.append(process)
        return process

    yield go
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def after_step(monkeypatch):
    """Calls a function after optimiser step `step`, once."""
    from osmose.engine.loop import Engine

    train_step = Engine.train_step

    def at(step, act):
        def wrapped(engine, shards):
            train_step(engine, shards)
            if engine.step == step:
                monkeypatch.setattr(Engine, "train_step", train_step)
                act()

        monkeypatch.setattr(Engine, "train_step", wrapped)

    return at


SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
"""A tiny Llama."""


@pytest.fixture(scope="session")
def bytewise():
    """A tokenizer of transformers whose tokens are bytes, with a token for the end of a text and one for its beginning."""
    pytest.importorskip("transformers")
    from osmose import torchvision_ops

    torchvision_ops.install()
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocab={**alphabet, "<end>": 256, "<start>": 257}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", bos_token="<start>")


@pytest.fixture(scope="session")
def llama(bytewise, tmp_path_factory):
    """Folders of tiny language models with random weights, by seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made = {}

    def folder(seed=0):
        if seed not in made:
            made[seed] = tmp_path_factory.mktemp("llama")
            torch.manual_seed(seed)
            config = LlamaConfig(
                vocab_size=258, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=257, eos_token_id=256,
                initializer_range=0.3, **SHAPE,
            )  # fmt: skip
            LlamaForCausalLM(config).save_pretrained(made[seed])
            bytewise.save_pretrained(made[seed])
        return made[seed]

    return folder


@pytest.fixture(scope="session")
def prose(tmp_path_factory):
    """The name of a text of 60 short documents."""
    folder = tmp_path_factory.mktemp("prose")
    words = ["a", "tree", "sees", "the", "old", "house", "and", "sings", "of", "rain"]
    draws = np.random.default_rng(0)
    lines = [" ".join(draws.choice(words, draws.integers(3, 12))) + "." for _ in range(60)]
    (folder / "lines.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    return f"text:{folder}"


@pytest.fixture(scope="session")
def speak(llama, prose):
    """Runs a short recipe of method language with changes in a folder."""
    from osmose.execution import execute as run
    from osmose.recipe import merge, resolve

    def go(folder, **changes):
        recipe = {
            "student": f"hf:{llama(1)}", "teacher": f"hf:{llama(0)}", "data": {"name": prose, "length": 24}, "epochs": 2,
            "batch_size": 8, "threads": 1, "log_every": 2, "method": {"name": "language", "optimiser": {"lr": 0.01}},
        }  # fmt: skip
        return run(resolve(merge(recipe, changes)), folder, quiet=True)

    return go


@pytest.fixture
def benchmark_file(monkeypatch):
    """Imports a file of benchmarks/ by name, with what it imports from beside it."""
    place = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(place))
    yield importlib.import_module
    for name in [file.stem for file in place.glob("*.py")]:
        sys.modules.pop(name, None)
