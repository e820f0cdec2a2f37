import subprocess
import sys
from importlib.util import find_spec

import pytest

INSTALL = "import torch; from osmose import torchvision_ops; torchvision_ops.install(); torchvision_ops.install(); "


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra 'vision'")
def test_timm_and_torchvision_work_after_installation():
    done = python(
        INSTALL + "import sys; assert 'torchvision' not in sys.modules; import timm; timm.create_model('resnet18'); "
        "from torchvision.transforms import v2; print(v2.functional.hflip(torch.tensor([[1, 2]])).tolist())"
    )
    assert done.stdout == "[[2, 1]]\n", done.stderr


@pytest.mark.parametrize("has_ops", [False, True])
def test_schemas_are_declared_only_where_they_are_missing(has_ops, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from . import extension\n")
    (package / "extension.py").write_text(f"def _has_ops():\n    return {has_ops}\n")
    done = python(INSTALL + "import torchvision; print(hasattr(torch.ops.torchvision, 'nms'))", cwd=tmp_path)
    assert done.stdout == f"{not has_ops}\n", done.stderr
