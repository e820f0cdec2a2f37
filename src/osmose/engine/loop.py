"""The one training loop: accumulate, one backward pass, a step of every moving player, evaluation, checkpoints."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric

from osmose.data.batch import Batch
from osmose.engine import checkpoint
from osmose.engine.chosen import Chosen
from osmose.engine.clock import Clock
from osmose.engine.fabric import LossOnly, average_statistics
from osmose.engine.feed import Feed
from osmose.engine.folder import RunFolder
from osmose.engine.interrupt import Interrupted, interruptions
from osmose.engine.meter import Meter
from osmose.engine.method import Method
from osmose.engine.optimiser import Player, at, clip_each
from osmose.engine.progress import Progress
from osmose.engine.settings import Training
from osmose.engine.sharding import finite, gathered, spread, spread_optimiser, unsharded
from osmose.errors import UserError, first_line
from osmose.processes import all_reduce, together
from osmose.signals import Speaker


class Engine:
    """Trains a method's players on a feed, and can be killed anywhere and started again.

    Args:
        fabric: devices, processes and precision.
        method: what is trained.
        feed: the micro-batches.
        settings: how long and how.
        folder: where checkpoints and metrics are kept.
        evaluate: called after each epoch; returns the numbers to log, of which the first is the score to choose by (higher
            is better). None: nothing is chosen.
        frozen: the frozen networks, by role; a resumed run must have the same.
        progress: what people see.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        feed: Feed,
        settings: Training,
        folder: RunFolder,
        *,
        evaluate: Callable[[], dict[str, float]] | None = None,
        frozen: Mapping[str, Speaker] | None = None,
        progress: Progress,
    ) -> None:
        self.fabric, self.method, self.feed = fabric, method, feed
        self.settings, self.folder, self.evaluate, self.progress = settings, folder, evaluate, progress
        self.frozen = dict(frozen or {})
        self._take_players()
        self.plateaus = [player.plateau for player in self.players.values() if player.plateau]
        for parameter in (p for parameters in self.parameters.values() for p in parameters):
            parameter.requires_grad_(True)
        self.module = fabric.setup_module(LossOnly(method))
        self.module.train()
        if settings.sharded:  # the parameters are others now
            self._take_players()
        self.optimisers: dict[str, Any] = {}
        for name, player in self.players.items():
            groups: list[dict[str, object]] = [{"params": group.parameters, "lr": 0.0} for group in player.groups]
            self.optimisers[name] = fabric.setup_optimizers(player.optimiser(groups))
        self.mine = [m * fabric.world_size + fabric.global_rank for m in range(settings.accumulate)]
        self.step = 0
        self.seconds = 0.0
        self.meter = Meter()
        self.chosen = Chosen()
        self.moving: frozenset[str] = frozenset(self.players)

    def _take_players(self) -> None:
        self.players: dict[str, Player] = self.method.players()
        self.parameters = {
            name: [p for group in player.groups for p in group.parameters] for name, player in self.players.items()
        }

    def clock(self) -> Clock:
        """The clock of the next optimiser step."""
        return Clock(
            step=self.step,
            steps_per_epoch=len(self.feed),
            epochs=self.settings.epochs,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
        )

    def fit(self) -> Chosen:
        """Train to the end, from the newest checkpoint if there is one.

        Raises:
            Interrupted: on SIGTERM or SIGINT, after a checkpoint was written.
            UserError: when the loss or the weights are no longer finite, a checkpoint or a line of metrics cannot be written, or
                what is to be gone on from has changed; the checkpoints from before are kept.
        """
        self._restore()
        self._started = time.monotonic() - self.seconds
        with interruptions() as stop, self.progress.running(self.clock()):
            while self.step < self.clock().total and not self._plateau_ended():
                self._epoch(stop)
        self.seconds = time.monotonic() - self._started
        return self.chosen

    def train_step(self, shards: Iterator[Batch]) -> None:
        """One optimiser step on the next `accumulate` micro-batches of `shards`."""
        fabric, accumulate = self.fabric, self.settings.accumulate
        clock = self.clock()
        self._set_moving(self.method.moving(clock))
        for position, shard in enumerate(self.mine):
            at_shard = replace(clock, shard=shard) if shard else clock
            with fabric.no_backward_sync(self.module, enabled=position < accumulate - 1):
                with at_shard.stream("forward"):
                    loss = self.module(next(shards), at_shard)
                fabric.backward(loss if accumulate == 1 else loss / accumulate)
            self.meter.add(loss, self.module.parts)
        for name in (name for name in self.players if name in self.moving):
            player, optimiser = self.players[name], self.optimisers[name]
            for group, settings in zip(optimiser.param_groups, player.groups, strict=True):
                group["lr"] = at(settings.lr, clock) * self._reduction(player)
                group["weight_decay"] = at(settings.weight_decay, clock)
            if player.clip is not None:
                fabric.clip_gradients(self.module, optimiser, max_norm=player.clip, error_if_nonfinite=False)
            if player.clip_each is not None:
                clip_each(self.parameters[name], player.clip_each)
            optimiser.step()
            optimiser.zero_grad()
        if fabric.world_size > 1:
            average_statistics(self.method)
        self.method.after_step(clock)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint keeps, but for the place in the run folder's files; where it is sharded all processes ask, and
        the first one gets it."""
        keep = self.fabric.is_global_zero
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {
            "step": self.step,
            "method": unsharded(self.method.state_dict(), keep=keep),
            "optimisers": unsharded(optimisers, keep=keep),
            "meter": self.meter.state(),
            "chosen": vars(self.chosen),
            "frozen": self._digests(),
        }

    def _digests(self) -> dict[str, str]:
        return {role: network.digest for role, network in self.frozen.items()}

    def _epoch(self, stop: Callable[[], int]) -> None:
        clock, settings = self.clock(), self.settings
        first = self.step - clock.epoch * len(self.feed)
        shards = self.feed.epoch(clock.epoch, first, self.mine)
        for done in range(first + 1, len(self.feed) + 1):
            self.train_step(shards)
            self.progress.advance(self.step)
            ends = done == len(self.feed)
            if ends or self.step % settings.log_every == 0:
                self._log(clock)
            if ends:
                self._end_epoch(clock.epoch + 1)
            stopping = self._agreed(stop)
            if ends or stopping or (settings.checkpoint_every and self.step % settings.checkpoint_every == 0):
                self._save()
            if stopping:
                raise Interrupted(self.step, stopping)

    def _agreed(self, stop: Callable[[], int]) -> int:
        """The signal to stop for here, or 0; several processes ask each other, where they log, so that none is left waiting."""
        if self.fabric.world_size == 1:
            return stop()
        if self.step % self.settings.log_every and self.step % len(self.feed):
            return 0
        return int(all_reduce(torch.tensor(stop()), "max"))

    def _log(self, clock: Clock) -> None:
        means = self.meter.read()
        with together(self.fabric):
            self._require(all(map(math.isfinite, means.values())), "loss is")
        self._write({"step": self.step, "epoch": clock.epoch + 1, **means})

    def _end_epoch(self, epoch: int) -> None:
        if self.evaluate is None:
            return
        with gathered(self.module):
            numbers = self.evaluate()
        self._write({"step": self.step, "epoch": epoch, **numbers})
        keep, whole = self.fabric.is_global_zero, bool(self.plateaus)
        self.chosen.update(next(iter(numbers.values())), epoch, self.method, keep=keep, whole=whole)
        if any(self.chosen.waited >= plateau.patience for plateau in self.plateaus):
            self.chosen.reduce(self.method, self.optimisers)

    def _plateau_ended(self) -> bool:
        return bool(self.plateaus) and self.chosen.reductions >= max(p.reductions for p in self.plateaus)

    def _reduction(self, player: Player) -> float:
        return player.plateau.factor**self.chosen.reductions if player.plateau else 1.0

    def _set_moving(self, names: Any) -> None:
        moving = frozenset(self.players) if names is None else frozenset(names)
        if moving != self.moving:
            for name in self.players:
                for parameter in self.parameters[name]:
                    parameter.requires_grad_(name in moving)
            self.moving = moving

    def _write(self, line: dict[str, Any]) -> None:
        with together(self.fabric):
            self.folder.write(line)
        self.progress.show(line)

    def _save(self) -> None:
        self.meter.share()
        with together(self.fabric):
            self._require(finite(list(self.method.parameters())), "weights are")
        state = self.state() if self.settings.sharded or self.fabric.is_global_zero else {}
        with together(self.fabric):
            if self.fabric.is_global_zero:
                state |= {"metrics": self.folder.size(), "seconds": time.monotonic() - self._started}
                checkpoint.save(self.folder.checkpoints, self.step, state)

    def _require(self, finite: bool, what: str) -> None:
        if not finite:
            raise UserError(
                f"the {what} no longer finite at step {self.step}: lower the optimiser's lr or set its clip; "
                "the last checkpoint is from before"
            )

    def _restore(self) -> None:
        folder = self.folder.checkpoints
        with together(self.fabric):
            state = checkpoint.newest(folder, self.progress.message) if self.fabric.is_global_zero else None
        step: int | None = self.fabric.broadcast(state["step"] if state else None)
        if step is None:
            self.folder.rewind(0)
            return
        with together(self.fabric):
            state = state or checkpoint.load(checkpoint.path_of(folder, step))
            for name, digest in state["frozen"].items():
                if self._digests().get(name) != digest:
                    raise UserError(
                        f"the weights of '{name}' are not the ones this run started with: "
                        "bring them back, or start anew with --fresh"
                    )
            try:
                self.method.load_state_dict(spread(state["method"], self.method.state_dict()))
            except (RuntimeError, KeyError) as error:  # the latter from a method's own extra state
                raise UserError(
                    f"{checkpoint.path_of(folder, step)} does not fit this method, perhaps it is of another version "
                    f"({first_line(error)}): start anew with --fresh"
                ) from error
            self.folder.rewind(state["metrics"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(spread_optimiser(state["optimisers"][name], self.parameters[name]))
        self.step, self.seconds = state["step"], state["seconds"]
        self.meter.restore(state["meter"], self.fabric.device)
        self.chosen = Chosen(**state["chosen"])
        self.progress.message(f"resumed at step {self.step} of {self.clock().total}")
