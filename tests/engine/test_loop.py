"""The loop against plain torch loops on the same batches, and what it keeps."""

import copy
import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osmose.engine import checkpoint
from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Group, Optimiser, Plateau, Player
from osmose.errors import UserError
from osmose.execution import seconds_per_step

STEPS, BATCH = 6, 8
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(STEPS, BATCH, 5, generator=GENERATOR)
Y = torch.randint(3, (STEPS, BATCH), generator=GENERATOR)


def new_network(*, batch_norm=False, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Linear(5, 16), nn.BatchNorm1d(16) if batch_norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout),
            nn.Linear(16, 3),
        )  # fmt: skip


class Plain(Method):
    """Cross-entropy of one network."""

    def __init__(self, network, optimiser=None):
        super().__init__()
        self.network = network
        self.optimiser = optimiser or Optimiser(lr=3.2)
        self.after = []

    def players(self):
        return {"student": self.optimiser.player(self.network.parameters())}

    def forward(self, batch, clock):
        loss = F.cross_entropy(self.network(batch.x), batch.y)
        return Step(loss, {"double": 2 * loss.detach()})

    def after_step(self, clock):
        self.after.append(clock.step)

    def products(self):
        return {"student": self.network}


def hand_trained(network, *, epochs=1, rate=lambda step: 0.1, momentum=0.9, weight_decay=1e-3, clip=None, shards=1):
    """The loop as anyone would write it; returns the loss of every step."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    losses = []
    for step in range(epochs * STEPS):
        x, y = X[step % STEPS], Y[step % STEPS]
        optimiser.zero_grad()
        total = 0.0
        for x_part, y_part in zip(x.chunk(shards), y.chunk(shards), strict=True):
            loss = F.cross_entropy(network(x_part), y_part)
            (loss / shards).backward()
            total += loss.item()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimiser.param_groups[0]["lr"] = rate(step)
        optimiser.step()
        losses.append(total / shards)
    return losses


def tensors(network):
    return list(network.state_dict().values())


def identical(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_equals_a_hand_written_loop_to_the_last_bit(engine, given_batches, metrics, tmp_path, batch_norm):
    ours, theirs = new_network(batch_norm=batch_norm), new_network(batch_norm=batch_norm)
    losses = hand_trained(theirs, epochs=2)
    engine(Plain(ours), given_batches(X, Y), epochs=2, batch_size=BATCH, log_every=1).fit()
    assert identical(ours, theirs)  # 3.2 * 8 / 256 = 0.1
    assert [line["loss"] for line in metrics(tmp_path / "run")] == losses


def test_a_momentum_step_written_out(engine, given_batches):
    """v <- 0.9 v + (g + wd w); w <- w - lr v, without torch.optim."""
    ours, theirs = new_network(), new_network()
    velocity = [torch.zeros_like(p) for p in theirs.parameters()]
    for step in range(STEPS):
        grads = torch.autograd.grad(F.cross_entropy(theirs(X[step]), Y[step]), list(theirs.parameters()))
        with torch.no_grad():
            for p, g, v in zip(theirs.parameters(), grads, velocity, strict=True):
                v.mul_(0.9).add_(g + 1e-3 * p)
                p.sub_(0.1 * v)
    engine(Plain(ours), given_batches(X, Y), batch_size=BATCH).fit()
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_schedule_and_clipping_equal_a_hand_written_loop(engine, given_batches):
    ours, theirs = new_network(), new_network()
    total = 2 * STEPS

    def rate(step):
        return 0.1 * (step + 1) / 3 if step < 3 else 0.1 * 0.5 * (1 + math.cos(math.pi * (step - 3) / (total - 3)))

    hand_trained(theirs, epochs=2, rate=rate, clip=0.05)
    optimiser = Optimiser(lr=3.2, schedule="cosine", warmup_epochs=0.5, clip=0.05)
    engine(Plain(ours, optimiser), given_batches(X, Y), epochs=2, batch_size=BATCH).fit()
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shards", [2, 4])
def test_accumulation_equals_one_large_batch(engine, given_batches, metrics, tmp_path, shards):
    """The mean over shards of equal size is the mean over the batch; what differs is the order of float32 sums, some 1e-7 of
    a gradient a step, and 6 steps at a rate of 0.1 cannot grow that beyond 1e-6."""
    once, parts = new_network(), new_network()
    engine(Plain(once), given_batches(X, Y), folder="once", batch_size=BATCH, log_every=1).fit()
    feed = given_batches(X, Y, shards=shards)
    engine(Plain(parts), feed, folder="parts", batch_size=BATCH, accumulate=shards, log_every=1).fit()
    for a, b in zip(tensors(once), tensors(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    for a, b in zip(metrics(tmp_path / "once"), metrics(tmp_path / "parts"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)


def test_accumulation_with_batch_norm_equals_a_hand_written_loop_over_the_shards(engine, given_batches):
    ours, theirs = new_network(batch_norm=True), new_network(batch_norm=True)
    hand_trained(theirs, shards=2)
    engine(Plain(ours), given_batches(X, Y, shards=2), batch_size=BATCH, accumulate=2).fit()
    assert identical(ours, theirs)


class TwoPlayers(Method):
    """Two networks whose gradients do not cross; who moves is decided by `moves`."""

    def __init__(self, first, second, *, clips=(None, None), moves=lambda clock: None, groups=None):
        super().__init__()
        self.first, self.second, self.clips, self.moves, self.groups = first, second, clips, moves, groups

    def players(self):
        def player(network, clip):
            groups = [Group(list(network.parameters()), 0.1)] if self.groups is None else self.groups(network)
            return Player(groups, torch.optim.SGD, clip=clip)

        return {"first": player(self.first, self.clips[0]), "second": player(self.second, self.clips[1])}

    def moving(self, clock):
        return self.moves(clock)

    def forward(self, batch, clock):
        return Step(F.cross_entropy(self.first(batch.x), batch.y) + 3 * F.cross_entropy(self.second(batch.x), batch.y))

    def products(self):
        return {"student": self.first}


def test_the_sum_of_two_losses_trains_both_players_as_if_alone(engine, given_batches):
    first, second, alone = new_network(), new_network(dropout=0.0), new_network()
    engine(TwoPlayers(first, second), given_batches(X, Y), batch_size=BATCH).fit()
    hand_trained(alone, momentum=0.0, weight_decay=0.0)
    assert identical(first, alone)
    assert not identical(second, alone)  # its loss is three times as large


def test_each_player_is_clipped_to_its_own_norm(engine, given_batches):
    """One step of rate 0.1 moves a clipped player by 0.1 * clip, and an unclipped one by 0.1 * its gradient's norm."""
    first, second = new_network(), new_network()
    before = [copy.deepcopy(network) for network in (first, second)]
    loss = 3 * F.cross_entropy(second(X[0]), Y[0])
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(second.parameters()))]).norm().item()
    method = TwoPlayers(first, second, clips=(1e-3, None))
    run = engine(method, given_batches(X[:1], Y[:1]), batch_size=BATCH)
    run.fit()
    moved = [
        torch.cat([(a - b).flatten() for a, b in zip(net.parameters(), old.parameters(), strict=True)]).norm().item()
        for net, old in zip((first, second), before, strict=True)
    ]
    assert moved[0] == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert moved[1] == pytest.approx(0.1 * norm, rel=1e-3)


def test_only_who_moves_changes(engine, given_batches):
    first, second = new_network(), new_network()
    states = []

    class Watched(TwoPlayers):
        def after_step(self, clock):
            states.append([copy.deepcopy(self.first), copy.deepcopy(self.second)])

    method = Watched(first, second, moves=lambda clock: ("first",) if clock.step % 2 == 0 else ("second",))
    states.append([copy.deepcopy(first), copy.deepcopy(second)])
    engine(method, given_batches(X, Y), batch_size=BATCH).fit()
    for step in range(STEPS):
        still, moves = ((1, 0), (0, 1))[step % 2]
        assert identical(states[step][still], states[step + 1][still])
        old, new = states[step][moves].requires_grad_(True), states[step + 1][moves]
        loss = (1, 3)[moves] * F.cross_entropy(old(X[step]), Y[step])
        grads = torch.autograd.grad(loss, list(old.parameters()))  # of this step alone
        for before, after, grad in zip(old.parameters(), new.parameters(), grads, strict=True):
            torch.testing.assert_close(after, before - 0.1 * grad)


def test_groups_have_schedules_of_their_own(engine, given_batches):
    """In the first group the rate is a function of the clock that is 0 from step 3 on; the second only decays."""
    network, other = new_network(), new_network()
    states = []

    def groups(net):
        return [
            Group(list(net[0].parameters()), lambda clock: 0.1 if clock.step < 3 else 0.0),
            Group(list(net[4].parameters()), 0.1, weight_decay=lambda clock: 0.5),
        ]

    class Watched(TwoPlayers):
        def forward(self, batch, clock):
            return Step(F.cross_entropy(self.first(batch.x), batch.y) * 0 + self.second(batch.x).sum() * 0)

        def after_step(self, clock):
            states.append(copy.deepcopy(self.first))

    engine(Watched(network, other, groups=groups), given_batches(X, Y), batch_size=BATCH).fit()
    start = new_network()
    assert torch.equal(states[-1][0].weight, start[0].weight)  # no gradient, no decay
    torch.testing.assert_close(states[-1][4].weight, start[4].weight * (1 - 0.1 * 0.5) ** STEPS)


def test_the_clock_of_forward_and_after_step(engine, given_batches):
    seen = []

    class Watched(Plain):
        def forward(self, batch, clock):
            seen.append((clock.step, clock.epoch, clock.shard, clock.total, clock.batch_size))
            return super().forward(batch, clock)

    method = Watched(new_network())
    engine(method, given_batches(X, Y, shards=2), epochs=2, batch_size=BATCH, accumulate=2, seed=3).fit()
    assert seen == [(s, s // STEPS, shard, 2 * STEPS, BATCH) for s in range(2 * STEPS) for shard in (0, 1)]
    assert method.after == list(range(2 * STEPS))  # once a step, not once a shard


def test_metrics_are_means_since_the_last_line_without_gaps(engine, given_batches, metrics, tmp_path):
    losses = hand_trained(new_network(), epochs=2)
    engine(Plain(new_network()), given_batches(X, Y), epochs=2, batch_size=BATCH, log_every=4).fit()
    lines = metrics(tmp_path / "run")
    assert [(line["step"], line["epoch"]) for line in lines] == [(4, 1), (6, 1), (8, 2), (12, 2)]
    for line, (a, b) in zip(lines, ((0, 4), (4, 6), (6, 8), (8, 12)), strict=True):
        assert line["loss"] == pytest.approx(sum(losses[a:b]) / (b - a), rel=1e-6)
        assert line["double"] == pytest.approx(2 * line["loss"], rel=1e-6)


def test_a_module_that_draws_elsewhere_does_not_shift_dropout(engine, given_batches):
    class Noisy(Plain):
        def forward(self, batch, clock):
            with clock.stream("augmentor/noise"):
                torch.rand(17)
            return super().forward(batch, clock)

        def after_step(self, clock):
            torch.rand(5)

    quiet, noisy, other = (new_network(dropout=0.5) for _ in range(3))
    engine(Plain(quiet), given_batches(X, Y), folder="a", batch_size=BATCH).fit()
    torch.manual_seed(99)
    engine(Noisy(noisy), given_batches(X, Y), folder="b", batch_size=BATCH).fit()
    engine(Plain(other), given_batches(X, Y), folder="c", batch_size=BATCH, seed=1).fit()
    assert identical(quiet, noisy)
    assert not identical(quiet, other)


def test_training_leaves_the_global_generator_as_it_was(engine, given_batches):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    engine(Plain(new_network(dropout=0.5)), given_batches(X, Y), batch_size=BATCH).fit()
    assert torch.equal(torch.rand(3), expected)


def test_plateau_lowers_the_rate_restores_the_best_weights_and_ends(engine, given_batches, metrics, tmp_path):
    """Scores by epoch 1, 5, 4, 4 | 3, 2 | ...: the best is epoch 2; with patience 2 reductions come after epochs 4 and 6."""
    scores = iter([1.0, 5.0, 4.0, 4.0, 3.0, 2.0, 1.0])
    network = new_network()
    ends, rates = [], []

    def evaluate():
        ends.append(copy.deepcopy(network))
        rates.append(run.optimisers["student"].param_groups[0]["lr"])
        return {"heldout_accuracy": next(scores)}

    optimiser = Optimiser(lr=3.2, schedule="plateau", plateau=Plateau(patience=2, factor=0.5, reductions=2))
    run = engine(
        Plain(network, optimiser), given_batches(X, Y), epochs=50, batch_size=BATCH, log_every=100, evaluate=evaluate
    )
    chosen = run.fit()
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 2)
    assert len(ends) == 6  # the run ended at the second reduction
    assert (chosen.epoch, chosen.score, chosen.reductions) == (2, 5.0, 2)
    assert identical(network, ends[1])  # the best weights are back at the end
    # and the first reduction went on from them: epoch 5 starts from epoch 2's weights, at half the rate, without momentum
    again = copy.deepcopy(ends[1])
    hand_trained(again, rate=lambda step: 0.05)
    assert identical(again, ends[4])
    assert metrics(tmp_path / "run")[-1] == {"step": 36, "epoch": 6, "heldout_accuracy": 2.0}


def test_without_an_evaluation_nothing_is_chosen(engine, given_batches):
    chosen = engine(Plain(new_network()), given_batches(X, Y), batch_size=BATCH).fit()
    assert (chosen.epoch, chosen.weights) == (0, {})


class Diverging(Plain):
    """Its loss is NaN from a step on, or its weights are."""

    def __init__(self, network, *, loss_from=math.inf, weights_from=math.inf):
        super().__init__(network)
        self.loss_from, self.weights_from = loss_from, weights_from

    def forward(self, batch, clock):
        step = super().forward(batch, clock)
        return Step(step.loss * math.nan) if clock.step >= self.loss_from else step

    def after_step(self, clock):
        if clock.step >= self.weights_from:
            with torch.no_grad():
                self.network[0].weight[0, 0] = math.inf


@pytest.mark.parametrize("trouble", [{"loss_from": 7}, {"weights_from": 7}])
@pytest.mark.parametrize("checkpoint_every", [1, 4, None])
def test_a_non_finite_run_stops_and_keeps_only_finite_checkpoints(
    engine, given_batches, tmp_path, trouble, checkpoint_every
):
    run = engine(
        Diverging(new_network(), **trouble), given_batches(X, Y), epochs=3, batch_size=BATCH, log_every=50,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"^the (loss|weights) (is|are) no longer finite at step \d+: lower .*from before$"
    ):
        run.fit()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    files = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert files
    for file in files:
        state = checkpoint.load(file)
        assert state["step"] <= 7
        assert all(value.isfinite().all() for value in state["method"].values() if value.is_floating_point())


class Phases(Plain):
    """Keeps plain values beside tensors, and a buffer whose places are not all filled yet."""

    def __init__(self, network):
        super().__init__(network)
        self.phase, self.pool = 0, []
        self.register_buffer("errors", torch.full((2,), math.nan))

    def after_step(self, clock):
        self.phase = clock.step // 2
        self.pool = [*self.pool, {"step": clock.step, "scale": torch.tensor(float(clock.step))}][-3:]

    def get_extra_state(self):
        return {"phase": self.phase, "pool": self.pool}

    def set_extra_state(self, state):
        self.phase, self.pool = state["phase"], state["pool"]


def test_a_methods_plain_state_and_unfilled_buffers_come_back_from_a_checkpoint(engine, given_batches):
    first, second = Phases(new_network()), Phases(new_network())
    engine(first, given_batches(X, Y), folder="first", batch_size=BATCH).fit()
    run = engine(second, given_batches(X, Y), folder="second", epochs=2, batch_size=BATCH)
    checkpoint_of_first = checkpoint.load(next((run.folder.path.parent / "first" / "checkpoints").iterdir()))
    checkpoint.save(run.folder.checkpoints, STEPS, checkpoint_of_first)
    run.folder.metrics.write_text(" " * checkpoint_of_first["metrics"])
    resumed = []
    second.moving = lambda clock: resumed.append((second.phase, len(second.pool))) or None
    run.fit()
    assert resumed[0] == (first.phase, 3)
    assert second.errors.isnan().all()
    assert [entry["step"] for entry in second.pool] == [2 * STEPS - 3, 2 * STEPS - 2, 2 * STEPS - 1]


def test_seconds_per_step_of_a_feed_of_one_batch(engine, given_batches):
    run = engine(Plain(new_network()), given_batches(X[:1], Y[:1]), batch_size=BATCH)
    step = run.train_step
    run.train_step = lambda shards: time.sleep(0.1) or step(shards)
    assert seconds_per_step(run) >= 0.1
