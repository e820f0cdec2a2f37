"""The user's own Python files, run before anything else so that they can register methods, targets, models and data."""

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path

from osmose.errors import UserError

imported: list[Path] = []
"""The files imported so far; a study's runs, each a process of its own, import them again."""


def import_file(path: str | Path) -> None:
    """Run a Python file as a module of its own, whose `__name__` a model source can be registered under.

    Raises:
        UserError: when there is no such file, or what its code raised, with the line.
    """
    file = Path(path).resolve()
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]  # two files may have one stem
    spec = importlib.util.spec_from_file_location(f"osmose_user_{file.stem}_{digest}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UserError(f"cannot import {path}: there is no such Python file; give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else 0
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"cannot import {path}: {type(error).__name__}: {what} (line {line}); mend the file") from None
    imported.append(file)
