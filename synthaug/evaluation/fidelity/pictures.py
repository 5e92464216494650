"""Pictures of the fidelity kit: lesions as a reader sees them, and what the classifier looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthaug.evaluation.fidelity.classifier import Look
from synthaug.evaluation.fidelity.scene import Sample
from synthaug.figures.charts import svg
from synthaug.figures.slices import figure, png

MOST_CHANNELS = 4
GREYS: dict[str, Any] = {"cmap": "gray", "vmin": -2.5, "vmax": 4, "interpolation": "none"}


def reader_pictures(sample: Sample) -> list[bytes]:
    """Draw a lesion's slice, a PNG for each channel; nothing marks the lesion."""
    return [png(np.rot90(grey_of(channel))) for channel in sample.view[:MOST_CHANNELS]]


def grey_of(channel: np.ndarray) -> np.ndarray:
    """Turn a slice into grey levels between its own percentiles: a window that shows a reader no numbers."""
    low, high = np.percentile(channel, (1, 99.7))
    return (255 * ((channel - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)


def evidence_picture(looks: Sequence[Look], channels: Sequence[str]) -> str:
    """Draw what classifiers looked at, as SVG: a row for each lesion, channels, then the evidence over the first."""
    shown = channels[:MOST_CHANNELS]
    drawing, _ = figure(1.7 * (len(shown) + 1), 1.9 * len(looks), 80)
    panels = drawing.subplots(len(looks), len(shown) + 1, squeeze=False)
    strongest = max(float(look.evidence.abs().quantile(0.99)) for look in looks) or 1.0
    for line, look in zip(panels, looks, strict=True):
        depth = look.crop.shape[-1] // 2
        for axes, name, channel in zip(line, shown, look.crop, strict=False):
            axes.imshow(np.rot90(channel[..., depth].numpy()), **GREYS)
            axes.set_title(name, fontsize=9)
        line[-1].imshow(np.rot90(look.crop[0, ..., depth].numpy()), **GREYS)
        line[-1].imshow(
            np.rot90(look.evidence[..., depth].numpy()),
            cmap="coolwarm",
            vmin=-strongest,
            vmax=strongest,
            alpha=0.55,
            interpolation="none",
        )
        line[-1].set_title(f"{'inserted' if look.inserted else 'real'}, {look.score:+.1f}", fontsize=9)
        for axes in line:
            axes.axis("off")
    drawing.tight_layout(pad=0.3)
    return svg(drawing)
