"""CD and CRD against plain re-derivations, and the memory banks behind CRD."""

import math
import os
import signal

import pytest
import torch

from osmose.data.batch import Batch
from osmose.engine.clock import Clock
from osmose.engine.interrupt import Interrupted
from osmose.errors import UserError
from osmose.methods.contrastive import Contrastive
from osmose.methods.crd import CRD, Bank, MemoryBank, Seen
from osmose.models import load_model
from osmose.signals import Frozen
from osmose.targets import FlipRule

X = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4
CLOCK = Clock(step=0, steps_per_epoch=2, epochs=4, batch_size=8)
CRD_METHOD = {"name": "contrastive", "loss": "crd", "bank": {"width": 4, "negatives": 50}, "optimiser": {"lr": 0.5}}


def network(name, seed):
    return load_model(f"fresh:zoo:{name}", num_classes=4, channels=1, image_size=(12, 12), seed=seed)


def build(**settings):
    frozen = {"teacher1": Frozen(network("cnn-xs", 1)), "initial": Frozen(network("mlp-xs", 2))}
    method = Contrastive(network("mlp-xs", 0), frozen, **settings)
    method.fit_to([(1, 12, 12)], torch.arange(8))
    return method, frozen


def batch(rows=slice(None)):
    return Batch(torch.arange(8)[rows], 0, X[rows], Y[rows])


def unit(features):
    return features / features.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("target", ["teacher", "partition", "initial"])
def test_cd_is_equation_6_row_by_row(target):
    method, frozen = build(target=target, cross_entropy_weight=0.5, contrast_weight=2.0)
    student, teacher, initial = (net(X) for net in (method.student, frozen["teacher1"], frozen["initial"]))
    expected = 0.0
    for i in range(8):
        knows = [said.logits[i].softmax(-1)[Y[i]] for said in (teacher, initial)]
        taught = {"teacher": teacher, "initial": initial, "partition": teacher if knows[0] > knows[1] else initial}[
            target
        ]
        ours, theirs = ((unit(said.features) @ unit(said.features)[i]).softmax(-1) for said in (student, taught))
        expected += 2.0 / 8 * (theirs * (theirs / ours).log()).sum()
        expected -= 0.5 / 8 * student.logits[i].log_softmax(-1)[Y[i]]
    torch.testing.assert_close(method(batch(), CLOCK).loss, expected)


def test_the_kl_divergence_can_take_part():
    method, frozen = build(contrast_weight=0.0, cross_entropy_weight=0.0, kl_weight=3.0, temperature=2.0)
    p, q = (net(X).logits.div(2.0).softmax(-1) for net in (frozen["teacher1"], method.student))
    torch.testing.assert_close(method(batch(), CLOCK).loss, 3.0 * 4 * (p * (p / q).log()).sum(-1).mean())


def test_crd_against_a_loop():
    """Every step in turn: each sample against its own row and the rows of other classes that were drawn, in both directions."""
    torch.manual_seed(0)
    crd = CRD(Bank(width=3, negatives=7), (5, 6), torch.arange(20))
    banks: list[dict[int, tuple[torch.Tensor, int]]] = [{}, {}]
    z = [math.nan, math.nan]
    for step in range(4):
        index = torch.arange(step % 2 * 6, step % 2 * 6 + 6)
        labels = index % 3
        features = torch.randn(6, 5), torch.randn(6, 6)
        loss = crd(features, index, labels, torch.Generator().manual_seed(step))
        drawn = torch.randint(20, (7,), generator=torch.Generator().manual_seed(step)).tolist()
        embedded = [unit(linear(one)).detach() for linear, one in zip(crd.embeddings, features, strict=True)]
        expected = 0.0
        for mine, other in ((0, 1), (1, 0)):
            scores = []
            for i in range(6):
                rows = [row for row in drawn if row in banks[other] and banks[other][row][1] != labels[i]]
                own = banks[other].get(int(index[i]), (embedded[other][i],))[0]
                scores.append(
                    [math.exp(embedded[mine][i] @ one / 0.07) for one in (own, *(banks[other][r][0] for r in rows))]
                )
            negatives = [score for row in scores for score in row[1:]]
            if math.isnan(z[mine]) and negatives:
                z[mine] = 20 * sum(negatives) / len(negatives)
            losses = []
            for own, *others in scores:
                if others:
                    noise = len(others) / 20
                    p, *ps = (score / z[mine] for score in (own, *others))
                    losses.append(-math.log(p / (p + noise)) - sum(math.log(noise / (q + noise)) for q in ps))
            expected += sum(losses) / max(1, len(losses))
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        crd.after_step()
        for i in range(6):
            for bank, embedding in zip(banks, embedded, strict=True):
                row, new = int(index[i]), embedding[i]
                bank[row] = (unit(0.5 * bank[row][0] + 0.5 * new) if row in bank else new, int(labels[i]))
    assert expected > 0
    assert crd.log_z.exp().tolist() == pytest.approx(z, rel=1e-4)


def test_both_embeddings_and_the_student_learn_from_crd():
    method, _ = build(loss="crd", bank=Bank(width=4, negatives=50))
    for _ in range(2):
        loss = method(batch(), CLOCK).loss
        method.after_step(CLOCK)
    loss.backward()
    for trained in (method.student.body, *method.crd.embeddings):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trained.parameters())
    (player,) = method.players().values()
    trained = {id(p) for group in player.groups for p in group.parameters}
    assert trained >= {id(p) for p in method.crd.embeddings.parameters()}


def seen(numbers, value):
    numbers = torch.tensor(numbers)
    return Seen(numbers, numbers % 3, unit(torch.full((2, len(numbers), 2), value) + torch.arange(2.0)))


def test_a_bounded_bank_keeps_the_latest_and_knows_whose_rows_are():
    bank = MemoryBank(width=2, rows=4, momentum=0.5)
    bank.write(seen([1, 2], 1.0))
    bank.write(seen([5], 3.0))  # takes the row of sample 1
    embeddings, own = bank.own(torch.tensor([1, 2, 5, 0]))
    assert own.tolist() == [False, True, True, False]
    torch.testing.assert_close(embeddings[:, 2], seen([5], 3.0).embeddings[:, 0])  # not blended with that of sample 1
    _, valid = bank.others(torch.tensor([0, 1, 2, 3]), torch.tensor([2, 0]))
    assert valid.tolist() == [[False, False, False, False], [False, True, True, False]]


def test_of_two_samples_with_one_row_one_stays_whole():
    bank = MemoryBank(width=2, rows=4, momentum=0.5)
    both = Seen(torch.tensor([6, 2]), torch.tensor([0, 2]), unit(torch.tensor([[[1.0, 0], [0, 1]]] * 2)))
    bank.write(both)
    embeddings, own = bank.own(torch.tensor([6, 2]))
    assert own.tolist() == [True, False]
    assert bank.labels[2] == 0
    assert embeddings[0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("method", [CRD_METHOD, {"name": "contrastive", "optimiser": {"lr": 0.5}}])
def test_runs_and_resumes(execute, metrics, left, after_step, tmp_path, method):
    execute(tmp_path / "whole", method=method)
    after_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        execute(tmp_path / "run", method=method)
    execute(tmp_path / "run", method=method)
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    losses = [line["contrast"] for line in metrics(tmp_path / "run") if "contrast" in line]
    assert losses[-1] != losses[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "crd", "target": "partition"}, "crd contrasts the student with one teacher, the target is 'partition': use"),
        ({"target": "flip-avg"}, "target 'flip-avg' teaches with a mean of logits, which has no features: use another"),
        ({"target": FlipRule(neutral="mean")}, "target 'by a rule' teaches with a mean of logits"),
        ({"contrast_weight": -1.0}, "key 'method.contrast_weight' is -1.0: set it to a number of at least 0"),
        ({"temperature": 0.0}, "key 'method.temperature' is 0.0: set it to a number above 0"),
    ],
)  # fmt: skip
def test_what_is_refused(settings, says):
    with pytest.raises(UserError, match=f"^{says}"):
        build(**settings)


@pytest.mark.parametrize(
    ("key", "value"), [("size", 0), ("negatives", 0), ("width", 0), ("temperature", 0.0), ("momentum", 1.0)]
)
def test_bank_settings_out_of_range(key, value):
    with pytest.raises(UserError, match=f"^key 'method.bank.{key}' is {value}: set it to"):
        Bank(**{key: value})


def test_banks_have_a_row_for_each_training_sample_whatever_its_number():
    numbers = torch.tensor([3, 900, 17])
    crd = CRD(Bank(width=2), (4, 4), numbers)
    assert crd.memory.rows == 3
    crd((torch.randn(3, 4), torch.randn(3, 4)), numbers, torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0))
    crd.after_step()
    assert sorted(crd.memory.labels[:3].tolist()) == [0, 1, 2]


def test_sharp_scores_stay_finite():
    crd = CRD(Bank(width=2, temperature=0.005, negatives=8), (4, 4), torch.arange(4))
    features, labels = torch.ones(4, 4), torch.arange(4)
    for _ in range(2):
        loss = crd((features, features), torch.arange(4), labels, torch.Generator().manual_seed(0))
        crd.after_step()
    assert loss.isfinite()
    assert crd.log_z.isfinite().all()


def test_crd_without_a_teacher_is_one_line(execute, tmp_path):
    with pytest.raises(UserError, match="the method needs a teacher: give --teacher"):
        execute(tmp_path / "run", teacher=None, method=CRD_METHOD)
