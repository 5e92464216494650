"""The report's pictures, as PNG and JPEG bytes: axial slices, the patient's left on the left, the front above."""

from collections.abc import Sequence

import numpy as np

from synthaug.classes import BRATS18
from synthaug.demo.loop import CHANNELS
from synthaug.figures.charts import BLUE, GREY, GRID, ORANGE, svg
from synthaug.figures.slices import (
    COLOURS,
    Outline,
    axial,
    enlarged,
    extent,
    figure,
    grey,
    jpeg,
    outlined,
    png,
    rgb,
    through,
    tinted,
)

BRIGHTER, DARKER = "#ff5fb0", "#35dcb4"
FULL_COLOUR_SD = 4
LONG_SIDE_PX = 320
COLUMNS = ("FLAIR before", "FLAIR after", "T1ce before", "T1ce after", "Label", "Change of FLAIR")


def panels(
    before: np.ndarray, after: np.ndarray, label_before: np.ndarray, label_after: np.ndarray
) -> tuple[list[bytes], int]:
    """Draw a picture per column of `COLUMNS`, as JPEG or PNG bytes; see `panel_arrays`."""
    pictures, z = panel_arrays(before, after, label_before, label_after)
    return [jpeg(picture) if picture.ndim == 2 else png(picture) for picture in pictures], z


def panel_arrays(
    before: np.ndarray, after: np.ndarray, label_before: np.ndarray, label_after: np.ndarray
) -> tuple[list[np.ndarray], int]:
    """Draw a picture per column of `COLUMNS`, uint8, grey (H, W) or (H, W, 3), of one axial slice, and give its index.

    The slice is that with most new label voxels, or one that shows the host's own tumour too where there is one.

    Args:
        before: (C, X, Y, Z), axes to the right, to the front and up; exactly 0 outside the brain.
        after: (C, X, Y, Z), with the insertion.
        label_before: (X, Y, Z).
        label_after: (X, Y, Z), with the insertion.
    """
    new, own = (x.sum((0, 1)) for x in (label_before != label_after, label_before != 0))
    both = np.minimum(new, own)
    z = int((both if both.any() else new).argmax())
    tissue = np.asarray(before.any(0))
    x, y = (extent(tissue.any(axis=(1 - axis, 2))) for axis in (0, 1))

    def cut(volume: np.ndarray) -> np.ndarray:
        return axial(volume, z, x, y)

    inside = cut(tissue)
    zoom = max(1, round(LONG_SIDE_PX / max(inside.shape)))
    greys = []
    for name in ("flair", "t1ce"):
        c = CHANNELS.index(name)
        low, high = np.percentile(before[c][tissue], (1, 99.7))
        high = max(high, np.percentile(cut(after[c])[inside], 99.7))
        greys += [grey(cut(volume[c]), inside, low, high, zoom) for volume in (before, after)]
    flair = CHANNELS.index("flair")
    spread = before[flair][tissue & (label_before == 0)].std()
    change = cut(after[flair] - before[flair]) / spread
    label = _contours(greys[3], cut(label_after), cut(label_before), zoom)
    return [*greys, label, _coloured(greys[0], change)], z


def lesion_slices(after: np.ndarray, label_before: np.ndarray, label_after: np.ndarray) -> list[tuple[str, bytes]]:
    """Draw some slices through an insertion, T1ce with the classes tinted: text and JPEG bytes, from below to above.

    Args:
        after: (C, X, Y, Z), with the insertion.
        label_before: (X, Y, Z).
        label_after: (X, Y, Z), with the insertion.
    """
    tissue = np.asarray(after.any(0))
    x, y = (extent(tissue.any(axis=(1 - axis, 2))) for axis in (0, 1))
    volume = after[CHANNELS.index("t1ce")]
    low, high = np.percentile(volume[tissue], (1, 99.7))
    zoom = max(1, round(LONG_SIDE_PX / max(axial(tissue, 0, x, y).shape)))
    colours = {value: COLOURS[name] for name, value in BRATS18.values.items()}
    pictures = []
    for z in through((label_before != label_after).any((0, 1))):
        background = grey(axial(volume, z, x, y), axial(tissue, z, x, y), low, high, zoom)
        words = f"T1ce with the label, axial slice {z}"
        pictures.append((words, jpeg(tinted(background, axial(label_after, z, x, y), colours, zoom))))
    return pictures


def loss_curve(losses: Sequence[float], steps_with_insertion: Sequence[int]) -> str:
    """Draw the loss over the steps, its running mean, and marks at the steps with an insertion, as SVG."""
    drawing, _ = figure(9.6, 3.0, 100)
    axes = drawing.add_axes((0.07, 0.17, 0.92, 0.79))
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 6)
    mean = [float(np.mean(losses[max(0, i + 1 - window) : i + 1])) for i in range(len(losses))]
    axes.plot(steps, losses, color=GREY, lw=1.2, marker="o", ms=3, label="loss of the batch")
    axes.plot(steps, mean, color=BLUE, lw=2, label=f"mean of the last {window}")
    marks = np.array(sorted(set(steps_with_insertion))) + 1
    floor = min(losses) - 0.12 * (max(losses) - min(losses) + 0.1)
    axes.scatter(marks, np.full(len(marks), floor), marker="^", s=16, color=ORANGE, label="tumours inserted")
    axes.set_xlabel("training step")
    axes.set_ylabel("Dice + cross-entropy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
    return svg(drawing)


def _coloured(background: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Colour what became brighter or darker, in standard deviations, on a dim brain; (H, W, 3) uint8."""
    change = enlarged(change, background.shape[0] // change.shape[0])[..., None]
    strength = (np.abs(change) / FULL_COLOUR_SD).clip(0, 1) ** 0.8
    colour = np.where(change > 0, rgb(BRIGHTER), rgb(DARKER))
    return ((1 - strength) * 0.45 * background[..., None] + strength * colour).astype(np.uint8)


def _contours(background: np.ndarray, label: np.ndarray, own: np.ndarray, zoom: int) -> np.ndarray:
    """Outline and tint classes on the brain; the label that the host had before is dashed in white."""
    classes = [Outline(label == value, COLOURS[name], fill=0.28) for name, value in BRATS18.values.items()]
    return outlined(background, [*classes, Outline(own != 0, "white", dashed=True, width=1.3)], zoom)
