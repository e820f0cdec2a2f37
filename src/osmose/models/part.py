"""The part of a network between two of its layers, for any network that is a chain there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from osmose.errors import UserError, first_line, unknown
from osmose.models.network import Network

_TRIED = 8
"""Samples on which a cut is tried."""
_COMPUTE = object()
"""Stands for the answer of a layer that is to answer by itself."""


class Part:
    """What a network makes of a state behind layer `low`, up to layer `high`: the high part of a cut network.

    The network's own code runs: of the layers that it calls before `low` has answered, the outermost that do not hold `low` are
    not computed but give what they gave for another sample, `low` gives the state, and the pass ends when `high` has answered.
    In a chain nothing else of the other sample is left; that it is one is tried at the start.

    Gradients flow through it, into its parameters too where they are wanted. Running statistics of normalisation stay as they
    are: states that come from elsewhere are not what the network will see.

    Args:
        network: the network; only referred to, and listened to at both layers from then on.
        low: path of the layer in the network's body whose output is given.
        high: path of the layer behind it whose output is asked for.
        shape: of one sample.

    Raises:
        UserError: when there are no such layers, they do not follow one another, are called more than once or give something else
            than one tensor, or when what comes behind `low` depends on more than its output.
    """

    def __init__(self, network: Network, low: str, high: str, shape: tuple[int, ...]) -> None:
        modules = dict(network.body.named_modules())
        for path in (low, high):
            if path not in modules or not path:
                raise unknown(f"layer of '{network.name}':", path, [name for name in modules if name])
        self.network, self.low, self.high = network, low, high
        trained = network.training
        network.eval()
        try:
            self._cut(modules, shape)
        finally:
            network.forget()
            network.train(trained)

    def _cut(self, modules: dict[str, nn.Module], shape: tuple[int, ...]) -> None:
        """Find what runs before the part, and try whether it can be left out."""
        network, low, high = self.network, self.low, self.high
        samples = _samples(network, shape)
        self._sample = samples[:1]
        calls = self._record(modules)
        for path in (low, high):
            _check_one_tensor(network.name, path, [call for call in calls if call.path == path])
        cut, last = (next(call for call in calls if call.path == path) for path in (low, high))
        if cut.end >= last.end:
            raise UserError(
                f"layer '{high}' of '{network.name}' does not come behind '{low}': exchange them, or name others"
            )
        before = [call for call in calls if call.end < cut.end and not cut.holds(call)]
        outermost = [call for call in before if not any(one.holds(call) for one in before)]
        self._answers: dict[nn.Module, list[Any]] = {}
        for call in outermost:
            self._answers.setdefault(modules[call.path], []).append(call.given)
        self._low, self._high = modules[low], modules[high]
        self._check_chain(samples)

    def __call__(self, state: Tensor) -> Tensor:
        """What `high` gives when `low` gives `state` [B, ...]: [B, ...]."""
        size = len(state)
        if self._sample.device != state.device:
            self._sample, self._answers = tree_map(lambda one: _moved(one, state.device), (self._sample, self._answers))
        given = {module: iter([_widened(one, size) for one in answers]) for module, answers in self._answers.items()}
        given[self._low] = iter([state.clone()])
        own = {module: (module.forward, vars(module).get("forward")) for module in (*given, self._high)}

        def stand_in(module: nn.Module, compute: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*inputs: Any, **settings: Any) -> Any:
                answer = next(given.get(module, iter(())), _COMPUTE)
                if answer is not _COMPUTE:
                    return answer
                said = compute(*inputs, **settings)
                if module is self._high:
                    raise _Reached(said)
                return said

            return forward

        with _statistics_kept(self.network):
            try:
                for module, (forward, _) in own.items():
                    module.forward = stand_in(module, forward)
                self.network.run(_widened(self._sample, size))
            except _Reached as reached:
                return reached.said
            finally:
                for module, (_, replaced) in own.items():
                    del module.forward
                    if replaced is not None:
                        module.forward = replaced
                self.network.forget()
        raise AssertionError("the layer was reached when the cut was made")

    @torch.no_grad()
    def _record(self, modules: dict[str, nn.Module]) -> list["_Call"]:
        """Every call of a module in a pass of one sample."""
        calls: list[_Call] = []
        open_calls: list[_Call] = []
        moments = count()

        def begins(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any) -> None:
                open_calls.append(_Call(path, begin=next(moments)))

            return hook

        def ends(module: nn.Module, inputs: Any, given: Any) -> None:
            call = open_calls.pop()
            call.end, call.given = next(moments), tree_map(_copied, given)
            calls.append(call)

        hooks = [
            hook
            for path, module in modules.items()
            if path
            for hook in (module.register_forward_pre_hook(begins(path)), module.register_forward_hook(ends))
        ]
        try:
            self.network.run(self._sample)
        finally:
            for hook in hooks:
                hook.remove()
        return calls

    @torch.no_grad()
    def _check_chain(self, samples: Tensor) -> None:
        """Raise `UserError` unless the states of some samples, beside what layers before gave for another one, give their own."""
        self.network.listen([self.low, self.high])
        given = self._try(samples)
        if torch.equal(given, given[:1].expand_as(given)):
            # Weights are 0 or units dead, which says nothing of what they read.
            with _other_weights(self.network):
                self._try(samples)

    def _try(self, samples: Tensor) -> Tensor:
        """What `high` gives for the samples; raises `UserError` where the part gives something else."""
        cause = None
        try:
            states = self.network.run(samples).states
            own = states[self.high]
            found = self(states[self.low])
            same = torch.allclose(found, own, rtol=1e-3, atol=1e-4 * float(own.abs().max()))
        # What stands in for a layer may have another shape, be changed in place, or be refused by the network's own code.
        except Exception as error:
            same, cause = False, error
        if same:
            return own
        reason = f" ({first_line(cause)})" if cause else ""
        raise UserError(
            f"'{self.network.name}' cannot be cut at layer '{self.low}': what comes behind it depends on more than its "
            f"output{reason}; name a layer that everything passes through, such as a whole block or stage"
        ) from cause


@dataclass
class _Call:
    """A call of a module in one pass: its path, when it began and ended, and what it gave."""

    path: str
    begin: int
    end: int = 0
    given: Any = field(default=None)

    def holds(self, other: "_Call") -> bool:
        """Whether the other one was made within this one."""
        return self.begin < other.begin and other.end < self.end


class _Reached(Exception):
    """Ends a pass at the layer that was asked for."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said


def _samples(network: Network, shape: tuple[int, ...]) -> Tensor:
    """Different samples, as the network's body takes them."""
    if network.preprocessing is None:
        known = (network.architecture or {}).get("arguments", {})
        users, items = known.get("users", 2), known.get("items", 2)
        pairs = dict.fromkeys((number % users, number % items) for number in range(_TRIED))
        if len(pairs) < 2:
            raise UserError(f"'{network.name}' knows one user and one item: there is nothing to tell apart")
        return torch.tensor(list(pairs), device=network.device)
    draws = torch.rand(_TRIED, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network.prepare(draws.to(network.device))


def _check_one_tensor(name: str, path: str, calls: list[_Call]) -> None:
    if len(calls) != 1:
        raise UserError(
            f"layer '{path}' of '{name}' is called {len(calls)} times for a sample: name one that is called once"
        )
    if not isinstance(calls[0].given, Tensor):
        kind = type(calls[0].given).__name__
        raise UserError(f"layer '{path}' of '{name}' gives {kind}: name one that gives one tensor")


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _widened(given: Any, size: int) -> Any:
    """What was given for one sample, as if for `size`; copies, as a layer behind may work in place."""

    def widen(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return one.expand(size, *one.shape[1:]).clone() if one.shape[:1] == (1,) else one.clone()

    return tree_map(widen, given)


@contextmanager
def _other_weights(network: nn.Module) -> Iterator[None]:
    """Inside the block weights are drawn at random, after it they are what they were."""
    kept = [(one, one.detach().clone()) for one in network.parameters() if one.is_floating_point()]
    draws = torch.Generator().manual_seed(0)
    try:
        for one, _ in kept:
            fan_in = max(1, one[0].numel()) if one.dim() > 1 else 1
            one.copy_(torch.randn(one.shape, generator=draws) / fan_in**0.5)
        yield
    finally:
        for one, value in kept:
            one.copy_(value)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside the block passes in training mode do not move running statistics, nor count."""
    norms = [one for one in network.modules() if isinstance(one, nn.modules.batchnorm._NormBase) and one.training]
    kept = [(one, one.momentum, one.num_batches_tracked) for one in norms]
    for one in norms:
        one.momentum = 0.0
        if one.num_batches_tracked is not None:
            one.num_batches_tracked = one.num_batches_tracked.clone()
    try:
        yield
    finally:
        for one, momentum, tracked in kept:
            one.momentum, one.num_batches_tracked = momentum, tracked
