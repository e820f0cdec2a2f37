"""Lets torchvision be imported beside a torch build that its compiled operators do not fit.

torchvision registers Python kernels for `torchvision::nms` and `torchvision::qnms` at import; where its C++ library
could not be loaded (a CUDA build of torchvision beside CPU-only torch) their schemas are missing and the import fails.
Declaring the two schemas is enough for everything that does not call them. Where the builds match, nothing is changed.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

import torch

_EXTENSION = "torchvision.extension"
_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_schemas: torch.library.Library | None = None  # the declarations live as long as this object


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        global _schemas
        super().exec_module(module)
        if not module._has_ops() and _schemas is None:
            _schemas = torch.library.Library("torchvision", "DEF")
            _schemas.define(f"nms{_NMS}")
            _schemas.define(f"qnms{_NMS}")


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _EXTENSION:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Watch for torchvision's import; costs nothing until then and may be called any number of times."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
