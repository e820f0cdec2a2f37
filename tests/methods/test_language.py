"""The method language against plain torch, its partition by hand, and runs of it that are stored, stopped and spread."""

import copy
import os
import signal
import time

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

pytest.importorskip("transformers")

from osmose import api, execution, grid, recipe
from osmose.data.batch import Batch
from osmose.engine import checkpoint
from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.evaluate.language import score_tokens
from osmose.methods.language import Language
from osmose.models.load_language import load_language
from osmose.signals.tokens import FrozenLanguage, Speech

WHOLE = Speech()
CLOCK = Clock(step=0, steps_per_epoch=4, epochs=1, batch_size=4)


@pytest.fixture(scope="module")
def models(llama):
    return [load_language(f"hf:{llama(seed)}") for seed in range(3)]


@pytest.fixture(scope="module")
def batch():
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 256, (4, 20), generator=draws)
    documents = (torch.arange(20) >= torch.tensor([5, 9, 12, 20])[:, None]).long()
    labels = tokens.roll(-1, 1)
    labels[:, -1] = -100
    labels[torch.arange(3), torch.tensor([4, 8, 11])] = -100  # the next token is another document's
    labels[0, :3] = -100
    return Batch(index=torch.arange(4), view=0, x=torch.stack([tokens, documents], dim=1), y=labels)


def build(models, *, teachers=1, speech=WHOLE, **settings):
    student, *others = (copy.deepcopy(model) for model in models)
    frozen = {
        f"teacher{number}": FrozenLanguage(other, speech=speech) for number, other in enumerate(others[:teachers], 1)
    }
    frozen["initial"] = FrozenLanguage(copy.deepcopy(models[0]), speech=speech)
    return Language(student, frozen, **settings)


def by_document(model, batch):
    """Logits [B, L, V] of transformers, each document alone."""
    rows = []
    for tokens, documents in batch.x.unbind(0) if batch.x.dim() == 2 else ((x[0], x[1]) for x in batch.x):
        parts = [model.body(tokens[documents == one][None]).logits[0] for one in documents.unique()]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def test_a_step_is_the_formula_with_documents_run_alone(models, batch):
    method = build(models, alpha=0.3, temperature=2.0)
    loss, parts = method(batch, CLOCK)
    loss.backward()
    plain = copy.deepcopy(models[0])
    student = by_document(plain, batch)
    with torch.no_grad():
        teacher = by_document(models[1], batch)
    counted = batch.y != -100
    hard = F.cross_entropy(student[counted], batch.y[counted])
    soft = F.kl_div((student[counted] / 2).log_softmax(-1), (teacher[counted] / 2).softmax(-1), reduction="batchmean")
    wanted = 0.3 * hard + 0.7 * 4 * soft
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts["cross_entropy"], hard.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts["divergence"], soft.detach(), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(method.student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_alone_it_is_the_cross_entropy_of_the_text(models, batch):
    method = build(models, teachers=0)
    loss, _ = method(batch, CLOCK)
    counted = batch.y != -100
    wanted = F.cross_entropy(by_document(models[0], batch)[counted], batch.y[counted])
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
    assert method.taught_by([]) == "the text (weight 1)"


@pytest.mark.parametrize(("target", "teachers"), [("partition", 1), ("partition", 2), ("partition-unsupervised", 2)])
@torch.no_grad()
def test_each_token_is_taught_by_whoever_knows_it(models, batch, target, teachers):
    method = build(models, teachers=teachers, target=target, alpha=0.0)
    loss, parts = method(batch, CLOCK)
    counted = batch.y != -100
    log_p = torch.stack(
        [by_document(model, batch)[counted].log_softmax(-1) for model in (models[0], *models[1 : 1 + teachers])]
    )
    if target == "partition":
        knows = log_p.gather(-1, batch.y[counted].expand(len(log_p), -1)[..., None]).squeeze(-1)
    else:
        knows = log_p.amax(-1)
    source = knows.argmax(0)
    taught = log_p[source, torch.arange(len(source))]
    wanted = F.kl_div(log_p[0], taught, log_target=True, reduction="batchmean")
    torch.testing.assert_close(loss, wanted, rtol=1e-3, atol=1e-5)
    names = ["initial", *(f"teacher{number}" for number in range(1, teachers + 1))]
    for number, name in enumerate(names):
        assert parts[f"share/{name}"].item() == pytest.approx((source == number).float().mean().item())


def test_micro_batches_of_different_tokens_average_to_the_whole(models, batch):
    """Batch.count makes the mean of two unequal halves the mean over all tokens."""
    method = build(models, alpha=0.5)
    whole, _ = method(batch, CLOCK)
    count = (batch.y != -100).sum().item() / 2
    halves = []
    for rows in (slice(0, 1), slice(1, 4)):
        part = batch.rows(rows)
        part.count = count
        halves.append(method(part, CLOCK).loss)
    torch.testing.assert_close(sum(halves) / 2, whole, rtol=1e-5, atol=1e-6)


def test_what_is_refused_and_what_is_asked(models):
    with pytest.raises(UserError, match="target 'teacher' takes one teacher, 2 given: use target 'partition'"):
        build(models, teachers=2)
    with pytest.raises(UserError, match=r"key 'method.alpha' is 2: set it to a share between 0 and 1"):
        build(models, alpha=2)
    assert build(models, alpha=1.0).reads() == {}
    assert build(models, teachers=0, target="initial").reads() == {"initial": ("hidden",)}
    assert set(build(models, target="partition", speech=Speech(top_k=3)).reads()) == {"initial", "teacher1"}


def test_matrices_alone_have_weight_decay(models):
    decayed, plain = build(models).players()["student"].groups
    assert {one.dim() for one in decayed.parameters} == {2}
    assert {one.dim() for one in plain.parameters} == {1}
    assert plain.weight_decay == 0


def left(folder):
    """What must be equal between two runs."""
    weights = {part: load_file(folder / part / "model.safetensors") for part in ("student", "student-chosen")}
    plain = {
        f"{part}/{name}": value.numpy().tobytes() for part, found in weights.items() for name, value in found.items()
    }
    return (folder / "metrics.jsonl").read_bytes(), plain


@pytest.mark.parametrize("signals", [{}, {"top_k": 6}, {"samples": 6}], ids=["hidden", "top", "sampled"])
@pytest.mark.parametrize("target", ["teacher", "partition"])
def test_a_run_from_a_store_is_a_live_run_to_the_last_bit(speak, tmp_path, signals, target):
    method = {"target": target}
    speak(tmp_path / "live", signals={**signals, "block": 4}, method=method)
    store = {**signals, "block": 4, "store": str(tmp_path / "store")}
    speak(tmp_path / "fills", signals=store, method=method)
    speak(tmp_path / "reads", signals=store, method=method, workers=2)
    assert left(tmp_path / "live") == left(tmp_path / "fills") == left(tmp_path / "reads")


def test_frozen_models_are_scored_once_for_all_runs(speak, tmp_path, monkeypatch):
    asked = []

    def count(model, *given, **named):
        asked.append(model.name)
        return score_tokens(model, *given, **named)

    monkeypatch.setattr("osmose.tasks.kept_scores.score_tokens", count)
    store = {"store": str(tmp_path / "store")}
    first = speak(tmp_path / "first", signals=store).numbers
    assert len(asked) == 4  # initial student and teacher, on the held-out and the test part
    live = speak(tmp_path / "live").numbers
    again = speak(tmp_path / "again", signals=store, seed=1).numbers
    assert len(asked) == 4
    assert again["teacher1"] == first["teacher1"] == live["teacher1"]
    for file in (tmp_path / "store").glob("scores-*"):
        file.write_bytes(b"cut short")
    speak(tmp_path / "damaged", signals=store, seed=2)
    assert len(asked) == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_last_bit(speak, after_step, tmp_path, number):
    whole = speak(tmp_path / "whole", method={"target": "partition"})
    after_step(5, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted):
        speak(tmp_path / "run", method={"target": "partition"})
    again = speak(tmp_path / "run", method={"target": "partition"})
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    assert again.numbers["perplexity_after"] == whole.numbers["perplexity_after"]


def test_what_a_run_leaves(speak, prose, tmp_path):
    result = speak(tmp_path / "run", data={"others": [prose]})
    from transformers import AutoModelForCausalLM, AutoTokenizer

    body = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    for ours, theirs in zip(body.parameters(), result.student.body.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert tokenizer("a")["input_ids"] == result.student.tokenizer("a")["input_ids"]
    numbers = result.numbers
    assert numbers["perplexity_after"] < numbers["perplexity_before"]
    assert numbers["others"][prose]["perplexity_after"] == numbers["perplexity_after"]
    assert numbers["retention_of_teacher1"]["perplexity_ratio"] == pytest.approx(
        numbers["perplexity_after"] / numbers["teacher1"]["perplexity"]
    )
    assert numbers["cost"]["student"]["tokens_per_second"] > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "perplexity after" in page
    assert '<p class="passage">' in page
    again = speak(tmp_path / "run", data={"others": [prose]})
    assert again.student.digest() == result.student.digest()


def test_accumulated_micro_batches_are_one_batch(speak, tmp_path):
    """A batch of eight blocks at once, and as two halves with other numbers of tokens."""
    one = speak(tmp_path / "one", epochs=1).student
    two = speak(tmp_path / "two", epochs=1, accumulate=2).student
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"length": 65}}, "data.length is 65 and hf:.* takes 64 tokens: lower it"),
        ({"data": {"others": ["text:nowhere"]}}, "data set 'text:nowhere': there is no nowhere"),
        (
            {"teacher": None, "method": {"target": "partition"}},
            "target 'partition' needs a teacher: give --teacher hf:FOLDER",
        ),
        ({"corruptions": ["fog"]}, "key 'corruptions' is of images, and text:.* has none: leave it out"),
        ({"view": {"flip": 0.3}}, "key 'view' is of images"),
        ({"method": {"target": "flips"}}, "key 'method.target' is 'flips': expected one of"),
        (
            {"data": "fashion-mnist-mini"},
            "method language does not work on fashion-mnist-mini: use supervised or distill",
        ),
        ({"method": "distill"}, "method distill does not work on text:.*: use language, or other data"),
    ],
)
def test_mistakes(speak, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        speak(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_other_tokenizers_are_refused(speak, llama, tmp_path):
    other = load_language(f"hf:{llama(0)}")
    other.tokenizer.add_tokens(["<new>"])
    other.body.resize_token_embeddings(259)
    other.save(tmp_path / "other")
    with pytest.raises(
        UserError, match="have different tokenizers .259 and 258 tokens.: one's next-token probabilities say"
    ):
        speak(tmp_path / "run", teacher=f"hf:{tmp_path / 'other'}")


@pytest.mark.parametrize("speech", [WHOLE, Speech(top_k=257)], ids=["hidden", "all but one token"])
@pytest.mark.parametrize("padded", ["student", "teacher"])
def test_padded_vocabularies(models, batch, padded, speech):
    """Teacher and student are compared over what both have, and the text is learned over all that the student has."""
    student, teacher = (copy.deepcopy(model) for model in models[:2])
    {"student": student, "teacher": teacher}[padded].body.resize_token_embeddings(272)
    frozen = {
        "teacher1": FrozenLanguage(teacher, speech=speech, vocabulary=258),
        "initial": FrozenLanguage(copy.deepcopy(student), speech=speech, vocabulary=258),
    }
    loss, parts = Language(copy.deepcopy(student), frozen, alpha=0.3)(batch, CLOCK)
    with torch.no_grad():
        said, taught = by_document(student, batch), by_document(teacher, batch)[..., :258]
    counted = batch.y != -100
    hard = F.cross_entropy(said[counted], batch.y[counted])
    soft = F.kl_div(said[counted][:, :258].log_softmax(-1), taught[counted].softmax(-1), reduction="batchmean")
    torch.testing.assert_close(loss.detach(), 0.3 * hard + 0.7 * soft, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["cross_entropy"], hard, rtol=1e-5, atol=1e-6)


def test_tokens_that_nothing_teaches_are_refused(models):
    student = copy.deepcopy(models[0])
    student.body.resize_token_embeddings(272)
    frozen = {"teacher1": FrozenLanguage(models[1], vocabulary=258)}
    with pytest.raises(UserError, match="the student has 272 tokens and its teachers 258.*: give method.alpha above 0"):
        Language(student, frozen, alpha=0.0)


def test_divergences_that_cannot_be_had_are_refused_before_anything_runs(models):
    with pytest.raises(UserError, match="beta.*below 1"):
        build(models, divergence="skewed", beta=1.0)
    with pytest.raises(UserError, match="divergence reverse cannot be had from sampled tokens"):
        build(models, divergence="reverse", speech=Speech(samples=4))


@pytest.mark.parametrize("signals", [{}, {"top_k": 250}, {"samples": 200}], ids=["hidden", "top", "sampled"])
def test_a_teacher_with_more_tokens_is_cut_to_what_both_have(speak, llama, signals, tmp_path):
    """It teaches what it taught before it had more."""
    other = load_language(f"hf:{llama(0)}")
    other.body.resize_token_embeddings(300)
    other.save(tmp_path / "other")
    found = []
    for run, teacher in (("run", llama(0)), ("other-run", tmp_path / "other")):
        settings = {"teacher": f"hf:{teacher}", "epochs": 1, "signals": signals, "method": {"target": "partition"}}
        numbers = speak(tmp_path / run, **settings).numbers
        found.append([numbers["perplexity_before"], numbers["perplexity_after"]])
    assert found[1][0] == found[0][0] != found[0][1]
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3 if "samples" in signals else 1e-5)


def stop_after_a_checkpoint(process, folder):
    """End a run as a user would, once it has something to go on from."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 143


def test_a_run_of_a_configuration_nobody_saved_is_resumed_by_another_process(start, tmp_path):
    """The weights of the initial student are kept in between, and are the same."""
    arguments = (
        "transfer", "--student", "fresh:zoo:llama-mini,layers=1", "--teacher", "fresh:zoo:llama-mini,layers=2",
        "--target", "partition", "--data", "text:comedies", "--data.fraction", "0.02", "--data.length", "64", "--epochs", "30",
        "--threads", "1", "--checkpoint_every", "1", "--output", tmp_path / "run",
    )  # fmt: skip
    stop_after_a_checkpoint(start(*arguments), tmp_path / "run")
    again = start(*arguments)
    said = next(line for line in again.stderr if "resumed at step" in line or "not the ones" in line)
    assert "resumed at step" in said


def test_a_student_of_four_bits_is_refused(speak, tmp_path):
    pytest.importorskip("bitsandbytes")
    load_language("fresh:zoo:llama-mini,layers=1").save(tmp_path / "model")
    with pytest.raises(UserError, match="has weights of 4 bits, which do not train: leave bits out"):
        speak(tmp_path / "run", student=f"hf:{tmp_path / 'model'},bits=4", teacher=None)


def test_a_student_of_narrow_weights_is_refused(speak, tmp_path):
    load_language("fresh:zoo:llama-mini,layers=1").save(tmp_path / "model")
    with pytest.raises(UserError, match="has narrow weights, which small steps do not change: leave dtype out"):
        speak(tmp_path / "run", student=f"hf:{tmp_path / 'model'},dtype=bfloat16", teacher=None)


def test_a_users_own_folder_is_left_alone(speak, llama, tmp_path):
    load_language(f"hf:{llama(0)}").save(tmp_path / "student")
    before = {path: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    with pytest.raises(
        UserError, match="holds 'student', which no run made and this one might write over: give another --output"
    ):
        speak(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "student").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--sharded", "true"]], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_losses_of_one_that_accumulates(start, speak, llama, prose, metrics, tmp_path, more):
    one = speak(tmp_path / "one", accumulate=2, log_every=1, method={"target": "partition"})
    process = start(
        "transfer", "--student", f"hf:{llama(1)}", "--teacher", f"hf:{llama(0)}", "--data", prose, "--data.length", "24",
        "--epochs", "2", "--batch-size", "8", "--threads", "1", "--log_every", "1", "--target", "partition", "--lr", "0.01",
        "--devices", "2", "--output", tmp_path / "two", *more,
    )  # fmt: skip
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    for ours, theirs in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    two = load_language(f"file:{tmp_path / 'two'}")
    for ours, theirs in zip(one.student.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


PLATEAU = {"schedule": "plateau", "plateau.patience": 1, "plateau.reductions": 9}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{}, PLATEAU], ids=["constant", "plateau"])
def test_a_spread_run_that_is_stopped_goes_on_to_the_last_bit(start, llama, prose, tmp_path, schedule):
    more = [text for key, value in schedule.items() for text in (f"--method.optimiser.{key}", value)]

    def arguments(folder):
        return (
            "transfer", "--student", f"hf:{llama(1)}", "--teacher", f"hf:{llama(0)}", "--data", prose, "--data.length", "24",
            "--epochs", "30", "--batch-size", "8", "--threads", "1", "--log_every", "1", "--lr", "0.01", "--devices", "2",
            "--sharded", "true", "--precision", "bf16-mixed", "--checkpoint_every", "5", "--output", tmp_path / folder, *more,
        )  # fmt: skip

    whole = start(*arguments("whole"))
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    stop_after_a_checkpoint(start(*arguments("run")), tmp_path / "run")
    again = start(*arguments("run"))
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert "resumed at step" in said
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_what_cannot_be_spread(speak, tmp_path, execute):
    with pytest.raises(UserError, match="key 'sharded' spreads weights that train, and with method.lora few do"):
        speak(tmp_path / "run", sharded=True, method={"lora": {"rank": 2}})
    with pytest.raises(UserError, match="key 'sharded' is of language models: leave it out"):
        execute(tmp_path / "images", sharded=True)


def test_updates_of_low_rank_train_and_are_folded_in(speak, llama, tmp_path):
    """Embeddings and norms stay as they were, linear layers change by a matrix of the rank, and the folder is a plain one."""
    pytest.importorskip("peft")
    result = speak(tmp_path / "run", method={"lora": {"rank": 2, "alpha": 8}, "optimiser": {"lr": 0.05}})
    before = load_language(f"hf:{llama(1)}").body.state_dict()
    after = load_language(f"file:{tmp_path / 'run'}").body.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2
    assert result.numbers["perplexity_after"] < result.numbers["perplexity_before"]
    assert result.student.digest() == load_language(f"file:{tmp_path / 'run'}").digest()
    assert all(parameter.requires_grad for parameter in result.student.parameters())


def test_updates_of_narrow_weights_are_wide(speak, llama, tmp_path):
    """The base stays what it is in bfloat16; what is added to it is not rounded to that."""
    pytest.importorskip("peft")
    result = speak(
        tmp_path / "run",
        student=f"hf:{llama(1)},dtype=bfloat16",
        method={"lora": {"rank": 2, "alpha": 8}, "optimiser": {"lr": 0.05}},
    )
    before = load_language(f"hf:{llama(1)},dtype=bfloat16").body.state_dict()
    after = load_language(f"file:{tmp_path / 'run'}").body.state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32}
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert changed == {name for name in before if "_proj" in name}
    for name in changed:
        assert not torch.equal(after[name].bfloat16().float(), after[name])
        assert torch.linalg.matrix_rank(after[name] - before[name].float(), rtol=1e-3) <= 2
    assert result.numbers["perplexity_after"] < result.numbers["perplexity_before"]


def test_an_adapted_run_goes_on_to_the_last_bit(speak, after_step, tmp_path):
    pytest.importorskip("peft")
    speak(tmp_path / "whole", method={"lora": {"rank": 2}})
    after_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        speak(tmp_path / "run", method={"lora": {"rank": 2}})
    speak(tmp_path / "run", method={"lora": {"rank": 2}})
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_checkpoints_of_an_adapted_run_hold_its_updates_alone(speak, after_step, tmp_path):
    pytest.importorskip("peft")
    settings = {"method": {"lora": {"rank": 2}}, "epochs": 4}
    after_step(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        speak(tmp_path / "run", **settings)
    state = checkpoint.newest(tmp_path / "run" / "checkpoints", print)
    for weights in (state["method"], state["chosen"]["weights"]["student"]):
        assert weights
        assert all("lora_" in name for name in weights)


def test_the_chosen_epoch_of_an_adapted_run_is_a_whole_model(speak, llama, tmp_path):
    pytest.importorskip("peft")
    method = {"lora": {"rank": 2}, "optimiser": {"lr": 0.3, "schedule": "constant"}}
    result = speak(tmp_path / "run", method=method, epochs=6)
    assert result.numbers["chosen"]["epoch"] < 6
    base, last, chosen = (
        load_language(name).body.state_dict()
        for name in (f"hf:{llama(1)}", f"file:{tmp_path / 'run'}", f"hf:{tmp_path / 'run' / 'student-chosen'}")
    )
    assert base.keys() == last.keys() == chosen.keys()
    for name in base:
        adapted = "_proj" in name
        assert torch.equal(chosen[name], base[name]) != adapted
        assert torch.equal(chosen[name], last[name]) != adapted


def test_activations_computed_again_give_the_same_gradients(models, batch):
    plain, again = build(models), build(models, checkpoint_activations=True)
    for method in (plain, again):
        method.train()
        method(batch, CLOCK).loss.backward()
    for ours, theirs in zip(plain.student.parameters(), again.student.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_teacher_of_narrow_weights_says_what_the_wide_one_does(dtype, speak, tmp_path):
    load_language("fresh:zoo:llama-mini,layers=2").save(tmp_path / "model")
    wide = f"hf:{tmp_path / 'model'}"
    runs = [
        speak(tmp_path / str(place), student=f"{wide},layers=1", teacher=teacher)
        for place, teacher in enumerate([wide, f"{wide},dtype={dtype}"])
    ]
    whole, half = (run.numbers["cost"]["teacher1"]["weights_mib"] for run in runs)
    assert half == pytest.approx(whole / 2, rel=0.01)
    losses = [run.numbers["teacher1"]["loss"] for run in runs]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    after = [run.numbers["loss_after"] for run in runs]
    assert after[0] == pytest.approx(after[1], rel=1e-3)


def test_a_teacher_of_four_bits_speaks(speak, tmp_path):
    pytest.importorskip("bitsandbytes")
    load_language("fresh:zoo:llama-mini,layers=2").save(tmp_path / "model")
    student = f"hf:{tmp_path / 'model'},layers=1"
    result = speak(tmp_path / "run", student=student, teacher=f"hf:{tmp_path / 'model'},bits=4")
    teacher, student = (result.numbers["cost"][role] for role in ("teacher1", "student"))
    assert teacher["weights_mib"] < student["weights_mib"]
    assert result.numbers["perplexity_after"] < result.numbers["perplexity_before"]


RECIPES = [name for name in recipe.packaged() if name.startswith("language")]


@pytest.mark.parametrize("name", RECIPES)
def test_packaged_recipes_run_shortened(name, llama, prose, tmp_path):
    """One epoch on little text, with tiny models in the place of theirs and every other setting as it is."""

    def small(model):
        return (
            model if model.startswith("$") else f"{'fresh:' if model.startswith('fresh:') else ''}hf:{llama()},layers=4"
        )

    shortened = []
    for stage, values in recipe.stages(recipe.load(name)).items():
        assert recipe.resolve(values).data.length >= 256
        short = {
            "epochs": 1,
            "batch_size": 8,
            "accumulate": 1,
            "workers": 0,
            "threads": 1,
            "student": small(values["student"]),
        }
        if values.get("teacher"):
            short["teacher"] = small(values["teacher"])
        data = {"name": prose, "length": 24, "fraction": 1.0, "others": [prose]}
        shortened.append({"name": stage or "only", **recipe.merge(values, short), "data": data})
    result = api.run({"stages": shortened}, output=tmp_path / "run")
    for numbers in result.numbers["stages"].values():
        assert 0 < numbers["perplexity_after"] < 2 * numbers["perplexity_before"]
        assert prose in numbers["others"]


@pytest.mark.parametrize(
    ("study", "models", "runs"),
    [
        ("language-smollm2", ["smollm2"], 18),
        ("language-partition", ["runs/two-domains/base", "runs/two-domains/teacher"], 24),
        ("language-settings", ["runs/language-mini/teacher"], 51),
    ],
)
def test_packaged_studies_are_whole(study, models, runs, llama, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for model in models:
        (tmp_path / model).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / model).symlink_to(llama())
    (tmp_path / "news").mkdir()
    (tmp_path / "brown.txt").write_text("x")
    cells = grid.expand(grid.load(study))
    assert len(cells) == runs
    execution.check_names(cell.recipe for cell in cells)


def test_a_study_whose_text_is_missing(llama, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").symlink_to(llama())
    (tmp_path / "news").mkdir()
    (tmp_path / "brown.txt").write_text("x")
    cells = grid.expand(grid.load("language-smollm2"))
    (tmp_path / "brown.txt").unlink()
    with pytest.raises(UserError, match="data set 'text:brown.txt': there is no brown.txt"):
        execution.check_names(cell.recipe for cell in cells)


def test_evaluate_leaves_a_users_model_as_it_is(llama, bytewise, prose):
    body = load_language(f"hf:{llama(0)}").body.to(torch.bfloat16)
    body.tokenizer = bytewise
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    api.evaluate(body, data={"name": prose, "length": 24})
    after = body.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == torch.bfloat16 for name, tensor in before.items()
    )
