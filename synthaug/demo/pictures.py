"""The report's pictures, as PNG bytes: an axial slice, the patient's left on the left, the front above."""

import io
from collections.abc import Sequence

import numpy as np

from synthaug.classes import BRATS18
from synthaug.demo.loop import CHANNELS

COLOURS = {"NCR": "#56b4e9", "ED": "#f0e442", "ET": "#ff6a2b"}
BRIGHTER, DARKER = "#ff5fb0", "#35dcb4"
FULL_COLOUR_SD = 4
LONG_SIDE_PX = 320
COLUMNS = ("FLAIR before", "FLAIR after", "T1ce before", "T1ce after", "Label", "Change of FLAIR")


def panels(
    before: np.ndarray, after: np.ndarray, label_before: np.ndarray, label_after: np.ndarray
) -> tuple[list[bytes], int]:
    """One picture per column of `COLUMNS`, all of one axial slice, and its index.

    The slice is that with most new label voxels, or one that shows the host's own tumour too where there is one.

    Args:
        before: (C, X, Y, Z), axes to the right, to the front and up; exactly 0 outside the brain.
        after: likewise.
        label_before: (X, Y, Z).
        label_after: likewise.
    """
    new, own = (x.sum((0, 1)) for x in (label_before != label_after, label_before != 0))
    both = np.minimum(new, own)
    z = int((both if both.any() else new).argmax())
    tissue = before.any(0)
    x, y = (_extent(tissue.any(axis=(1 - axis, 2))) for axis in (0, 1))

    def cut(volume: np.ndarray) -> np.ndarray:
        return np.rot90(volume[x, y, z])

    inside = cut(tissue)
    zoom = max(1, round(LONG_SIDE_PX / max(inside.shape)))
    greys = []
    for name in ("flair", "t1ce"):
        c = CHANNELS.index(name)
        low, high = np.percentile(before[c][tissue], (1, 99.7))
        high = max(high, np.percentile(cut(after[c])[inside], 99.7))
        greys += [_grey(cut(volume[c]), inside, low, high, zoom) for volume in (before, after)]
    flair = CHANNELS.index("flair")
    spread = before[flair][tissue & (label_before == 0)].std()
    change = cut(after[flair] - before[flair]) / spread
    label = _contours(greys[3], cut(label_after), cut(label_before), zoom)
    return [*(_png(g) for g in greys), _png(label), _png(_coloured(greys[0], change))], z


def loss_curve(losses: Sequence[float], steps_with_insertion: Sequence[int]) -> bytes:
    """The loss over the steps, its running mean, and marks at the steps with an insertion."""
    figure, canvas = _figure(9.6, 3.0, 150)
    axes = figure.add_axes((0.07, 0.17, 0.92, 0.79))
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 6)
    mean = [float(np.mean(losses[max(0, i + 1 - window) : i + 1])) for i in range(len(losses))]
    axes.plot(steps, losses, color="#a9b8c9", lw=1.2, marker="o", ms=3, label="loss of the batch")
    axes.plot(steps, mean, color="#1f5fa8", lw=2, label=f"mean of the last {window}")
    marks = np.array(sorted(set(steps_with_insertion))) + 1
    floor = min(losses) - 0.12 * (max(losses) - min(losses) + 0.1)
    axes.scatter(marks, np.full(len(marks), floor), marker="^", s=16, color="#d2521c", label="tumours inserted")
    axes.set_xlabel("training step")
    axes.set_ylabel("Dice + cross-entropy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6eaef", lw=0.8)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
    return _rendered(figure, canvas)


def _extent(mask: np.ndarray) -> slice:
    where = np.flatnonzero(mask)
    return slice(max(int(where[0]) - 2, 0), int(where[-1]) + 3)


def _grey(values: np.ndarray, inside: np.ndarray, low: float, high: float, zoom: int) -> np.ndarray:
    """(H, W) uint8; black outside the brain, also where z-scores make that a middle value."""
    shown = np.where(inside, 0.06 + 0.94 * ((values - low) / (high - low)).clip(0, 1), 0)
    return (_enlarged(shown, zoom).clip(0, 1) * 255).astype(np.uint8)


def _enlarged(values: np.ndarray, zoom: int) -> np.ndarray:
    from PIL import Image  # comes with matplotlib

    size = (values.shape[1] * zoom, values.shape[0] * zoom)
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def _coloured(grey: np.ndarray, change: np.ndarray) -> np.ndarray:
    """A dim brain, and in colour what became brighter or darker, in standard deviations; (H, W, 3) uint8."""
    change = _enlarged(change, grey.shape[0] // change.shape[0])[..., None]
    strength = (np.abs(change) / FULL_COLOUR_SD).clip(0, 1) ** 0.8
    colour = np.where(change > 0, _rgb(BRIGHTER), _rgb(DARKER))
    return ((1 - strength) * 0.45 * grey[..., None] + strength * colour).astype(np.uint8)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)


def _contours(grey: np.ndarray, label: np.ndarray, own: np.ndarray, zoom: int) -> np.ndarray:
    """Classes outlined and tinted on the brain; the label that the host had before is dashed in white."""
    height, width = grey.shape
    figure, canvas = _figure(width / 100, height / 100, 100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(-0.5, width / zoom - 0.5, height / zoom - 0.5, -0.5))
    for name, value in BRATS18.values.items():
        mask = (label == value).astype(float)
        if mask.any():
            axes.contourf(mask, levels=[0.5, 1.5], colors=[COLOURS[name]], alpha=0.28)
            axes.contour(mask, levels=[0.5], colors=[COLOURS[name]], linewidths=1.5)
    if own.any():
        axes.contour((own != 0).astype(float), levels=[0.5], colors=["white"], linewidths=1.3, linestyles="dashed")
    axes.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _figure(width_in: float, height_in: float, dpi: int):
    """A figure and its canvas, made without pyplot so that the caller's figures and backend are left alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=dpi)
    return figure, FigureCanvasAgg(figure)


def _rendered(figure, canvas) -> bytes:
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def _png(pixels: np.ndarray) -> bytes:
    """Grey (H, W) or colour (H, W, 3) uint8; colour is kept to 256 shades, which halves the file."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.ndim == 3:
        image = image.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
