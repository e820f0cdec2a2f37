"""Inputs beside what learned augmentations make of them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from osmose.figures.canvas import canvas


def draw_augmented(path: Path, x: Tensor, augmented: Mapping[str, Tensor]) -> None:
    """Rows of pictures: the originals, and below them what each augmentation made of them.

    Args:
        path: the file.
        x: the originals, [n, C, H, W] in [0, 1], with C of 1 or 3.
        augmented: for each row its name, and images of the same shape or fewer of them, where some were blended.
    """
    rows = {"original": x, **augmented}
    with canvas(path, rows=len(rows), columns=len(x), size=(0.9 * len(x) + 1.2, 0.95 * len(rows))) as axes:
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            for place in line:
                place.set(xticks=[], yticks=[])
                place.spines[:].set_visible(False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
            for place, image in zip(line, images, strict=False):
                picture = image.float().clamp(0, 1).permute(1, 2, 0).squeeze(-1).cpu().numpy()
                place.imshow(picture, cmap="gray", vmin=0, vmax=1)
