"""Pictures as arrays and PNG bytes: axial slices in grey, coloured outlines, figures; used by all reports.

Slices are shown with the front above and the patient's left on the left, for volumes whose axes lead to the right,
to the front and up.
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

COLOURS = {"NCR": "#56b4e9", "ED": "#f0e442", "ET": "#ff6a2b", "RC": "#c39bff"}
"""Colours of the glioma classes."""

PALETTE = ("#ff6a2b", "#56b4e9", "#f0e442", "#4bd39a", "#c39bff", "#ff5fb0", "#b8c4d0")
"""Colours of classes with other names, in order."""


def class_colours(names: Sequence[str]) -> dict[str, str]:
    """Choose a colour for each class: the fixed one of a glioma class, the next free one of the palette for another."""
    taken = {COLOURS[name] for name in names if name in COLOURS}
    free = itertools.cycle([colour for colour in PALETTE if colour not in taken])
    return {name: COLOURS.get(name) or next(free) for name in names}


@dataclass(frozen=True)
class Outline:
    """A mask to draw on a slice.

    Attributes:
        mask: (H, W) bool, as the slice is shown.
        colour: colour of the line.
        fill: opacity of its area, 0 for none.
        dashed: whether the line is.
        width: width of the line in points.
    """

    mask: np.ndarray
    colour: str
    fill: float = 0.0
    dashed: bool = False
    width: float = 1.5


def axial(volume: np.ndarray, z: int, x: slice = slice(None), y: slice = slice(None)) -> np.ndarray:
    """Cut an axial slice (H, W) of (X, Y, Z), turned as it is shown."""
    return np.rot90(volume[x, y, z])


def extent(mask: ArrayLike, margin: int = 2) -> slice:
    """Find where an (N,) mask is true, from first to last, with a margin.

    Raises:
        ValueError: it is true nowhere.
    """
    where = np.flatnonzero(mask)
    if not len(where):
        raise ValueError("extent: expected a mask that is true somewhere")
    return slice(max(int(where[0]) - margin, 0), int(where[-1]) + 1 + margin)


def grey(values: np.ndarray, inside: np.ndarray, low: float, high: float, zoom: int) -> np.ndarray:
    """Turn (H, W) into uint8 between the levels, enlarged; black outside, even where z-scores are middling there."""
    shown = np.where(inside, 0.06 + 0.94 * ((values - low) / max(high - low, 1e-9)).clip(0, 1), 0)
    return (enlarged(shown, zoom).clip(0, 1) * 255).astype(np.uint8)


def enlarged(values: np.ndarray, zoom: int) -> np.ndarray:
    """Enlarge (H, W) to (H zoom, W zoom), bicubic."""
    from PIL import Image  # comes with matplotlib

    size = (values.shape[1] * zoom, values.shape[0] * zoom)
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def rgb(colour: str) -> np.ndarray:
    """Parse ``"#rrggbb"`` to (3,), 0 to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)


def outlined(background: np.ndarray, outlines: Iterable[Outline], zoom: int) -> np.ndarray:
    """Draw outlines and tints on an enlarged grey slice.

    Args:
        background: (H zoom, W zoom) uint8, of `grey`.
        outlines: masks of (H, W); those that are nowhere true are left out.
        zoom: enlargement of the background.

    Returns:
        (H zoom, W zoom, 3) uint8.
    """
    height, width = background.shape
    drawing, canvas = figure(width / 100, height / 100, 100)
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.imshow(background, cmap="gray", vmin=0, vmax=255, extent=(-0.5, width / zoom - 0.5, height / zoom - 0.5, -0.5))
    for item in outlines:
        if not item.mask.any():
            continue
        mask = item.mask.astype(float)
        if item.fill:
            axes.contourf(mask, levels=[0.5, 1.5], colors=[item.colour], alpha=item.fill)
        style = "dashed" if item.dashed else "solid"
        axes.contour(mask, levels=[0.5], colors=[item.colour], linewidths=item.width, linestyles=style)
    axes.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def require_matplotlib(what: str) -> None:
    """Check, before anything long is begun, that pictures can be drawn.

    Args:
        what: needs it, as the message says.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{what} is drawn with matplotlib: pip install "synthaug[demo]"') from error


def figure(width_in: float, height_in: float, dpi: int):
    """Make a figure and its canvas, without pyplot so that the caller's figures and backend are left alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width_in, height_in), dpi=dpi)
    return drawing, FigureCanvasAgg(drawing)


def rendered(drawing, canvas) -> bytes:
    """Render a figure as PNG bytes."""
    canvas.draw()
    return png(np.asarray(canvas.buffer_rgba())[..., :3])


def tinted(background: np.ndarray, label: np.ndarray, colours: Mapping[int, str], zoom: int) -> np.ndarray:
    """Tint the classes of a label map on an enlarged grey slice; quicker than `outlined`.

    Args:
        background: (H zoom, W zoom) uint8, of `grey`.
        label: (H, W), as the slice is shown.
        colours: colour by label value.
        zoom: enlargement of the background.

    Returns:
        (H zoom, W zoom, 3) uint8.
    """
    large = label.repeat(zoom, 0).repeat(zoom, 1)
    picture = np.repeat(background[..., None], 3, axis=-1).astype(np.float32)
    for value, colour in colours.items():
        inside = large == value
        picture[inside] = 0.62 * picture[inside] + 0.38 * rgb(colour)
    return picture.astype(np.uint8)


def through(mask: ArrayLike, count: int = 5) -> list[int]:
    """Choose slices spread evenly through an (N,) mask, without its ends; [] where it is true nowhere."""
    where = np.flatnonzero(mask)
    return [] if not len(where) else sorted({int(z) for z in np.linspace(where[0], where[-1], count + 2)[1:-1].round()})


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode grey (H, W) or colour (H, W, 3) uint8 as JPEG: noisy slices take a third of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Encode grey (H, W) or colour (H, W, 3) uint8 as PNG; colour in 256 shades, which halves the file."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.ndim == 3:
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
