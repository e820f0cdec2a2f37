"""Text, for causal language models."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import Tensor

from osmose.data.batch import Batch
from osmose.data.corpus import Corpus, Passages, check_text, learned, load_passages, load_text
from osmose.data.documents import find_text
from osmose.data.feed import TextFeed
from osmose.data.loader import Loader
from osmose.engine.method import Method
from osmose.errors import UserError
from osmose.evaluate.heldout import HeldOutText
from osmose.evaluate.language import changed_tokens, retention, score_tokens, text_numbers
from osmose.losses.language import IGNORED
from osmose.models.language import LanguageModel
from osmose.models.load_language import find_language, load_language
from osmose.models.model import Model
from osmose.recipe import Recipe, Text
from osmose.signals.tokens import FrozenLanguage, Speech
from osmose.tasks.kept_scores import kept_scores
from osmose.tasks.task import Measured, Modules, Products, Task, placed, result_numbers

_SHOWN, _LONG = 6, 200
"""Blocks of the test part that are shown token by token, and how many tokens of each."""
_FEW = 2
"""Blocks that are enough to tell what a model costs."""


@dataclass
class TextTask(Task):
    """The task of the methods that train a `LanguageModel`."""

    data: Corpus
    student: LanguageModel
    initial: LanguageModel
    teachers: dict[str, LanguageModel]

    @classmethod
    def gather(cls, recipe: Recipe, modules: Modules, products: Products) -> Self:
        def load(role: str, name: str) -> LanguageModel:
            given = copy.deepcopy(modules[role]) if role in modules else placed(name, products)
            return load_language(given, seed=recipe.seed, stream=f"{role}/init")

        (name,) = recipe.students
        student = load("student", name)
        student.check_saving()
        if getattr(student.body, "is_loaded_in_4bit", False):
            raise UserError(f"student {name} has weights of 4 bits, which do not train: leave bits out")
        if student.body.dtype != torch.float32 and recipe.method.get("lora") is None:
            raise UserError(
                f"student {name} has narrow weights, which small steps do not change: leave dtype out, or give method.lora"
            )
        teachers = {role: load(role, name) for role, name in recipe.roles.items()}
        for role, teacher in teachers.items():
            _check_tokens(f"teacher {recipe.roles[role]}", teacher, f"student {name}", student)
        settings = _settings(recipe)
        for model in (student, *teachers.values()):
            model.check_length(settings.length)
        for name in settings.others:
            check_text(**settings.scoring(name))
        data = load_text(**settings.cutting(), tokenizer=student.tokenizer)
        return cls(recipe, data, student, copy.deepcopy(student), teachers, [], modules)

    @classmethod
    def check_names(cls, recipes: Sequence[Recipe]) -> None:
        for text in dict.fromkeys(name for recipe in recipes for name in (recipe.data.name, *_settings(recipe).others)):
            find_text(text)
        for model in dict.fromkeys(name for recipe in recipes for name in (*recipe.students, *recipe.roles.values())):
            if not model.startswith("$"):
                find_language(model)

    @classmethod
    def product(cls, recipe: Recipe, folder: Path, modules: Modules) -> LanguageModel:
        return load_language(f"file:{folder}")

    def speakers(self) -> dict[str, Any]:
        return super().speakers() if self.recipe.method["target"] != "teacher" else dict(self.teachers)

    def frozen(self, network: LanguageModel, device: torch.device) -> FrozenLanguage:
        recipe = self.recipe
        speech = Speech(
            recipe.signals.top_k, recipe.signals.samples, recipe.method["temperature"], _settings(recipe).split_seed
        )
        common = min(model.vocabulary for model in (self.student, *self.teachers.values()))
        mixed = recipe.frozen_precision == "bf16-mixed"
        return FrozenLanguage(network, device, mixed=mixed, speech=speech, vocabulary=common)

    def check(self, method: Method) -> list[str]:
        self.refuse_keys_of_images()
        if self.recipe.sharded and self.recipe.method["lora"] is not None:
            raise UserError(
                "key 'sharded' spreads weights that train, and with method.lora few do: leave one of them out"
            )
        notes, settings = [], _settings(self.recipe)
        everyone = {"student": self.student, **self.teachers}
        sizes = {who: model.vocabulary for who, model in everyone.items()}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{who} {size}" for who, size in sizes.items())
            notes.append(f"vocabularies are padded to different sizes ({text}): the tokens that all have are compared")
        assert self.data.train.labels is not None
        parts, cut = self.data.documents, self.data.cut
        if cut.get("shortened") or cut.get("emptied"):
            notes.append(
                f"{cut.get('shortened', 0)} documents with prompts are longer than a block and lose their end; "
                f"{cut.get('emptied', 0)}, whose prompts fill one, are left out: data.length is {settings.length}"
            )
        notes.append(
            f"{parts['train']} documents to train on, {parts['heldout']} held out, {parts['test']} for the test; "
            f"{len(self.data.train)} blocks of {self.data.train.inputs.shape[-1]} tokens, "
            f"{int(learned(self.data.train.labels).sum())} of them to be learned an epoch"
        )
        return notes

    def feed(self, loader: Loader, device: torch.device) -> TextFeed:
        return TextFeed(loader, device)

    def score(self, student: Callable[[], LanguageModel], fabric: Fabric) -> Callable[[], dict[str, float]] | None:
        passages = self.data.heldout
        mixed = self.recipe.precision == "bf16-mixed"
        return None if passages is None else HeldOutText(student, passages, fabric, mixed=mixed)

    def measure(self, students: Mapping[str, LanguageModel], device: torch.device) -> Measured:
        settings = _settings(self.recipe)
        models = {"before": self.initial, **self.teachers, **students}
        parts = {"": self.data.test(), **({"heldout": self.data.heldout} if self.data.heldout else {})}
        for name in settings.others:
            parts[name] = load_passages(**settings.scoring(name), tokenizer=self.student.tokenizer)
        scores = {part: self._scores(models, passages, device) for part, passages in parts.items()}
        measured = {part: self._numbers(passages, scores[part], list(students)) for part, passages in parts.items()}
        test, heldout = measured.pop(""), measured.pop("heldout", {})
        numbers = result_numbers(self.recipe, "perplexity of a token", test, heldout)
        numbers["others"] = {name: found["after"] for name, found in measured.items()}
        return Measured(numbers, texts={"passages": self._marked(parts[""], scores[""])})

    def _scores(
        self, models: Mapping[str, LanguageModel], passages: Passages, device: torch.device
    ) -> dict[str, Tensor]:
        """What each model makes of a text: of one that has several roles once, of frozen ones from the store of signals."""
        mixed, store = self.recipe.precision == "bf16-mixed", self.recipe.signals.store
        frozen = {self.initial, *self.teachers.values()}

        def score(model: LanguageModel) -> Tensor:
            model.to(device)
            if store is not None and model in frozen:
                return kept_scores(store, model, passages, mixed=mixed)
            return score_tokens(model, passages, mixed=mixed)

        scores = {model: score(model) for model in dict.fromkeys(models.values())}
        return {role: scores[model] for role, model in models.items()}

    def _marked(self, passages: Passages, scores: Mapping[str, Tensor]) -> list[list[tuple[str, str]]]:
        """Some blocks of the test part, token by token: its text, and whether it is newly predicted, or no longer."""
        split, decode = passages.split, self.student.tokenizer.decode
        assert split.labels is not None
        marked = []
        for row in torch.linspace(0, len(split) - 1, min(_SHOWN, len(split))).long().tolist():
            block, pieces = split.inputs.read(torch.tensor([row]))[0, 0], []
            for place in split.labels[row].ne(IGNORED).nonzero().flatten().tolist()[:_LONG]:
                was, now = (bool(scores[role][1, row, place]) for role in ("before", "after"))
                tone = "" if was == now else "gained" if now else "lost"
                pieces.append((decode([int(block[place + 1])]), tone))
            marked.append(pieces)
        return marked

    def _numbers(
        self, passages: Passages, scores: Mapping[str, Tensor], students: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """The numbers on one part of a text, for each of the students."""
        each = {role: text_numbers(said, passages) for role, said in scores.items()}
        found = {}
        for student in students:
            numbers: dict[str, Any] = {"documents": passages.documents, "tokens": each[student].pop("tokens")}
            for name in each[student]:
                numbers[f"{name}_before"], numbers[f"{name}_after"] = each["before"][name], each[student][name]
            numbers |= changed_tokens(scores["before"], scores[student], passages)
            for role in self.teachers:
                numbers[role] = {name: value for name, value in each[role].items() if name != "tokens"}
                numbers[f"retention_of_{role}"] = retention(each[student], each[role])
            found[student] = numbers
        return found

    def few(self, device: torch.device) -> Batch:
        train = self.data.train
        few = train.subset(torch.arange(min(_FEW, len(train))))
        assert few.labels is not None
        x = few.inputs.read(torch.arange(len(few))).long().to(device)
        return Batch(index=few.index, view=None, x=x, y=few.labels.long())

    def cost(self, model: Model) -> dict[str, Any]:
        found = super().cost(model)
        return found | {"tokens_per_second": 1000 * self.data.train.inputs.shape[-1] / found["latency_ms"]}

    def seconds_of_evaluation(self) -> float:
        passages = self.data.heldout
        if passages is None:
            return 0.0
        some = passages.split.subset(torch.arange(min(8, len(passages.split))))
        started = time.monotonic()
        score_tokens(self.student, Passages(some, 0, 0, passages.documents, passages.last_word[: len(some)]))
        return (time.monotonic() - started) * len(passages.split) / len(some)


def _settings(recipe: Recipe) -> Text:
    assert isinstance(recipe.data, Text), "resolve has seen to it"
    return recipe.data


def _check_tokens(who: str, teacher: LanguageModel, whose: str, student: LanguageModel) -> None:
    if teacher.tokens != student.tokens:
        raise UserError(
            f"{who} and {whose} have different tokenizers ({len(teacher.tokenizer)} and {len(student.tokenizer)} tokens): one's "
            "next-token probabilities say nothing of the other's: give a student of the teacher's family, or make one from it, "
            f"{teacher.name},layers=N or fresh:{teacher.name},layers=N"
        )
