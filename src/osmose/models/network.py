"""A network that owns its preprocessing and class names, and shows its features and states beside its logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from osmose.errors import UserError, unknown
from osmose.models.model import Predictor, Preprocessing, evaluating

STATES = "states."
"""Begins the name of a layer's output among the fields of `Outputs`."""


@dataclass
class Outputs:
    """What a network says of a batch of B samples.

    `logits` are [B, C] (regression: [B, 1]); `features` [B, D] are what the classifier reads; `tokens` are what was
    there before pooling, a feature map [B, E, H, W] or tokens [B, N, E], or None where the network does not tell; `states`
    are what the layers gave that `Network.listen` named, by their path.
    """

    logits: Tensor
    features: Tensor
    tokens: Tensor | None
    states: dict[str, Tensor] = field(default_factory=dict)

    def field(self, name: str) -> Tensor | None:
        """ "logits", "features", "tokens", or "states.PATH"; None where the network does not give it."""
        if name.startswith(STATES):
            return self.states.get(name.removeprefix(STATES))
        values: Tensor | None = getattr(self, name)
        return values

    def float(self) -> "Outputs":
        """The same in float32."""
        return self._each(Tensor.float)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Outputs":
        tokens = None if self.tokens is None else change(self.tokens)
        states = {path: change(state) for path, state in self.states.items()}
        return Outputs(change(self.logits), change(self.features), tokens, states)


class Network(Predictor):
    """A classifier or regressor with its own preprocessing.

    A body with timm's methods `forward_features`, `forward_head` and `get_classifier` is run by them. Of any other
    module, transformers' image classifiers among them, the features are what its last `nn.Linear` reads, or, where it has
    none, what it gives.

    Args:
        body: maps normalised images [B, channels, H, W], or whole numbers [B, ...], to logits [B, C].
        name: how the user calls it, for example "zoo:cnn-s".
        architecture: what `sources.rebuilt` makes the body of, all JSON; None: it cannot be rebuilt.
        preprocessing: what the body expects of images; None: it takes whole numbers.
        classes: names of the classes in the order of the logits; None: unknown.
        num_classes: C; 0 for a body without a head, which can only be a teacher of what its layers give.

    Attributes:
        channels_last: whether the body's layers give maps whose channels come last.

    Raises:
        UserError: when the class names do not fit the logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        architecture: dict[str, Any] | None,
        preprocessing: Preprocessing | None,
        classes: tuple[str, ...] | None,
        num_classes: int,
    ) -> None:
        super().__init__(body, name=name, architecture=architecture, preprocessing=preprocessing)
        if classes is not None and len(classes) != num_classes:
            raise UserError(
                f"'{name}' has {num_classes} outputs but {len(classes)} class names were given: "
                "name the classes it was trained for"
            )
        self.classes = classes
        self.num_classes = num_classes
        if preprocessing is not None:
            shape = (1, preprocessing.channels, 1, 1)
            self.register_buffer("mean", torch.tensor(preprocessing.mean).view(shape), persistent=False)
            self.register_buffer("std", torch.tensor(preprocessing.std).view(shape), persistent=False)
        self._ears: dict[str, RemovableHandle] = {}
        self._states: dict[str, Tensor] = {}
        of_torchvision = type(body).__name__ == "SwinTransformer" and hasattr(body, "permute")
        self.channels_last = of_torchvision or str(getattr(body, "output_fmt", "")) == "NHWC"
        self._staged = all(hasattr(body, method) for method in ("forward_features", "forward_head", "get_classifier"))
        if self._staged:
            # A lone linear classifier gives the logits from the features; two heads, convolutions, VOLO's auxiliary
            # head do not.
            lone = num_classes > 0 and not getattr(body, "aux_head", None)
            self._direct = lone and isinstance(self.body.get_classifier(), nn.Linear)
        else:
            self._head_name = last_linear(body) if num_classes else ""
            self._seen: Tensor | None = None
            if self._head_name:
                self.head.register_forward_pre_hook(self._see)

    def listen(self, paths: Iterable[str]) -> None:
        """Let `Outputs.states` hold what these layers give, from the next forward pass on.

        Args:
            paths: of modules in the body that return one tensor [B, ...], for example "blocks.3" (`named_modules` has them).

        Raises:
            UserError: when the body has no such layer.
        """
        modules = dict(self.body.named_modules())
        for path in paths:
            if path not in modules or not path:
                raise unknown(f"layer of '{self.name}':", path, [name for name in modules if name])
            if path not in self._ears:
                self._ears[path] = modules[path].register_forward_hook(partial(self._hear, path))

    def listen_for(self, fields: Iterable[str]) -> None:
        """Listen to the layers whose states are among some fields of `Outputs`; raises as `listen`."""
        self.listen(name.removeprefix(STATES) for name in fields if name.startswith(STATES))

    def quiet(self) -> None:
        """Listen to no layer any more."""
        for ear in self._ears.values():
            ear.remove()
        self._ears = {}

    def settle(self) -> None:
        """It is a plain network again, whose layers nobody listens to."""
        self.quiet()

    def forget(self) -> None:
        """Let go of what layers gave in a pass that did not end."""
        self._states = {}
        if not self._staged:
            self._seen = None

    @property
    def head(self) -> nn.Module:
        """The classifier, the last linear layer (for a network with two heads a list of both).

        Raises:
            UserError: when there is none.
        """
        if not self._staged:
            if not self._head_name:
                raise UserError(f"'{self.name}' has no nn.Linear for a classifier: end it in one")
            head: nn.Module = self.body.get_submodule(self._head_name)
            return head
        classifier = self.body.get_classifier()
        return classifier if isinstance(classifier, nn.Module) else nn.ModuleList(classifier)

    @torch.no_grad()
    def reorder(self, classes: tuple[str, ...]) -> bool:
        """Put the outputs into the order of `classes`, by the rows of the classifier.

        Returns:
            Whether it could be done: the network must know the same classes, and its classifier be one linear layer.
        """
        if self.classes is None or sorted(self.classes) != sorted(classes) or not isinstance(self.head, nn.Linear):
            return False
        rows = torch.tensor([self.classes.index(name) for name in classes], device=self.head.weight.device)
        for parameter in self.head.parameters():
            parameter.copy_(parameter[rows])
        self.classes = classes
        return True

    def forward(self, x: Tensor) -> Outputs:
        """Normalise and run images [B, C, H, W], floats in [0, 1]; whole numbers run as they are.

        One channel is repeated where the body takes more; a size that does not fit is resized (bicubic or bilinear, antialiased).

        Raises:
            UserError: when the images' channels do not fit or they are not floats.
        """
        return self.run(self.prepare(x))

    def run(self, x: Tensor) -> Outputs:
        """What it says of inputs that `prepare` gave."""
        outputs = self._run(x)
        outputs.states, self._states = self._states, {}
        return outputs

    def _run(self, x: Tensor) -> Outputs:
        if not self._staged:
            return self._run_plain(x)
        tokens = self.body.forward_features(x)
        features = self.body.forward_head(tokens, pre_logits=True)
        if self.num_classes == 0:
            logits = features
        else:
            logits = self.body.get_classifier()(features) if self._direct else self.body.forward_head(tokens)
        if not isinstance(tokens, Tensor):
            tokens = None
        elif self.channels_last:
            tokens = tokens.permute(0, 3, 1, 2)
        return Outputs(logits, features, tokens)

    def tried(self, shape: tuple[int, ...]) -> Outputs:
        """What it says, in evaluation mode, of one sample of zeros: the shapes of its answers to inputs of `shape`."""
        numbers = torch.float32 if self.preprocessing else torch.int64
        with evaluating(self):
            said: Outputs = self(torch.zeros(1, *shape, dtype=numbers, device=self.device))
        return said

    @property
    def width(self) -> int:
        """The number of classes."""
        return self.num_classes

    def answer(self, x: Tensor) -> Tensor:
        """Logits."""
        outputs: Outputs = self(x)
        return outputs.logits.float()

    def prepare(self, x: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Inputs as the body takes them: images of its channels and size, normalised.

        Args:
            x: the inputs.
            size: height and width that images are brought to; None takes the body's own, where it has one.

        Raises:
            UserError: as `forward`.
        """
        wanted = self.preprocessing
        if wanted is None:
            return x
        if x.shape[1] not in (1, wanted.channels):
            raise UserError(
                f"'{self.name}' takes images of {wanted.channels} channels, these have {x.shape[1]}: convert them, "
                "or choose a 'fresh:' network, which takes the channels of the data"
            )
        if not x.is_floating_point():
            raise UserError(f"'{self.name}' takes floats in [0, 1], these images are {x.dtype}: divide them by 255")
        size = size or wanted.size
        if size is not None and x.shape[-2:] != size:
            mode = "bicubic" if wanted.interpolation == "bicubic" else "bilinear"
            x = F.interpolate(x, size, mode=mode, antialias=True).clamp(0, 1)
        return (x - self.mean) / self.std  # broadcasting repeats a single channel

    def _run_plain(self, x: Tensor) -> Outputs:
        given = self.body(x)
        logits = getattr(given, "logits", given)  # transformers gives them among other things
        if not isinstance(logits, Tensor):
            raise UserError(
                f"'{self.name}' returns {type(given).__name__}: give a module that returns its logits alone"
            )
        if not self._head_name:
            if logits.dim() < 2:
                shape, rows = list(logits.shape), len(x)
                raise UserError(
                    f"'{self.name}' gives outputs of shape {shape} for {rows} samples: give [{rows}, 1], one row a sample"
                )
            return Outputs(logits.flatten(1), logits.flatten(1), None)
        features, self._seen = self._seen, None
        if features is None:
            raise UserError(
                f"'{self.name}' did not run its last linear layer '{self._head_name}': remove it, or give the module "
                "timm's methods forward_features, forward_head and get_classifier"
            )
        return Outputs(logits, features.flatten(1), None)

    def _hear(self, path: str, layer: nn.Module, inputs: Any, given: Any) -> None:
        if not isinstance(given, Tensor):
            raise UserError(
                f"layer '{path}' of '{self.name}' gives {type(given).__name__}: name one that gives one tensor"
            )
        self._states[path] = given.clone()  # a layer behind may work in place

    def _see(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]

    def about(self) -> dict[str, Any]:
        """What stands beside the weights in its file; each value is JSON."""
        return super().about() | {"classes": self.classes, "num_classes": self.num_classes}


def last_linear(body: nn.Module) -> str:
    """The path in `body` of its last linear layer; empty where there is none."""
    linear: list[str] = [path for path, module in body.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else ""
