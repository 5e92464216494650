"""Small banks and batches for the engine's tests."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from synthaug import BRATS18, LesionBank, LesionShapes, TumorInsertion
from synthaug.generators.learned.denoiser import Denoiser
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.gan import GANGenerator
from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.style import StylePrior

CHANNELS = ("flair", "t1", "t1ce", "t2")


def toy_bank(count: int = 4, size: int = 12, classes=BRATS18, channels=CHANNELS) -> LesionBank:
    """Nested balls with their own intensities, one per patient, in noisy "brains"."""
    return LesionBank.from_arrays([toy_case(i, size, classes, channels) for i in range(count)], classes, channels)


def toy_case(number: int, size: int, classes=BRATS18, channels=CHANNELS):
    rng = np.random.default_rng(number)
    side = size + 16
    axis = np.arange(side) - side / 2
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis * 1.2, axis * 0.9, indexing="ij")))
    image = (100 + 10 * rng.standard_normal((len(channels), side, side, side))).astype(np.float32)
    image[:, :3] = 0
    label = np.zeros((side,) * 3, np.int16)
    values = list(classes.values.values())
    for k, value in enumerate(values[::-1]):
        inside = radius < size / 2 * (1 - k / len(values))
        label[inside] = value
        image[:, inside] += 20 * (k + 1)
    return f"case-{number}", f"patient-{number}", image, label, (1.0, 1.0, 1.0)


def toy_batch(samples=2, size=(48, 44, 40), channels=4, seed=0, dtype=torch.float32, labelled=True):
    """Noise brains with a background of exact zeros and, in one corner, an existing lesion."""
    generator = torch.Generator().manual_seed(seed)
    image = 100 + 15 * torch.randn(samples, channels, *size, generator=generator)
    image[..., :3] = 0
    label = torch.zeros(samples, 1, *size, dtype=torch.int64)
    if labelled:
        label[:, :, 4:12, 4:12, 5:12] = 2
    return image.to(dtype), label


def toy_insertion(generator="paste", lesions=None, **options) -> TumorInsertion:
    """An insertion that asks for one lesion in every sample, unless told otherwise."""
    if lesions is None:
        lesions = toy_bank()
    options = {"prob": 1.0, "second": 0.0, "seed": 3} | options
    return TumorInsertion(lesions, generator, **options)


def toy_gan(channels=CHANNELS, classes=BRATS18.names, seed=0, **options) -> GANGenerator:
    """A painter of very few channels with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        painter = Painter(len(channels), len(classes), (8, 8, 8, 8), head=9)
    return GANGenerator(painter, StylePrior(len(classes), len(channels)), channels, classes, **options)


def toy_diffusion(channels=CHANNELS, classes=BRATS18.names, seed=0, **options) -> DiffusionGenerator:
    """A denoiser of very few channels with random weights, and two steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = Denoiser(len(channels), len(classes), (8, 8, 8, 8), head=9, embedding=8)
    prior = StylePrior(len(classes), len(channels))
    return DiffusionGenerator(denoiser, prior, channels, classes, **({"steps": 2, "refined": True} | options))


GENERATORS = {
    "paste": lambda: ("paste", toy_bank()),
    "procedural": lambda: ("procedural", LesionShapes(diameter_mm=(8, 14))),
    "gan": lambda: (toy_gan(), LesionShapes(diameter_mm=(8, 14))),
    "diffusion": lambda: (toy_diffusion(), LesionShapes(diameter_mm=(8, 14))),
}
"""Every generator with lesions it can work on; the engine's properties are tested for each."""

OPTIONS = {
    "defaults": {},
    "second": {"second": 1.0, "scale": (0.5, 0.9)},
    "swaps": {"swaps": [("ED", "ET", 0.7), ("ET", "NCR", 0.7)]},
    "each": {"swaps": [("ED", "ET", 0.7), ("ET", "NCR", 0.7)], "swap_draw": "each"},
    "mix": {"class_mix": {"NCR": 0.3, "ED": 0.3, "ET": 0.4}},
    "diameter": {"diameter_mm": (6, 12)},
    "bent": {"rotate_deg": 20.0, "elastic_mm": 1.5, "scale": (0.6, 0.9)},
    "halo": {"halo_mm": 2.0},
    "showing": {"show_through": {"ED": {"t1": 0.5}, "ET": 0.25}},
    "fringe": {"fringe_mm": 2.0, "edge_texture": True},
    "hard edge": {"edge_vox": 0.0, "clearance_mm": 0.0, "tissue_share": 0.5},
}
"""Option sets under which the properties must hold."""


def flop_counter() -> FlopCounterMode:
    """A counter that knows the convolution that networks take on CPUs, too."""

    def flops(x, weight, *_, out_shape, **__):
        return conv_flop_count(x, weight, out_shape, transposed=False)

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: flops})


def done_rows(plan) -> list[dict]:
    """The rows of a plan that were done."""
    return [row for row in plan.to_rows() if row["outcome"] == "done"]


def crops(count=2, size=32, channels=4, classes=3, seed=0):
    """Noise crops with nested boxes of the classes taken out."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, classes, size, size, size)
    for k in range(classes):
        low, high = 6 + 3 * k, size - 6 - 3 * k
        mask[:, :, low:high, low:high, low:high] = 0
        mask[:, k, low:high, low:high, low:high] = 1
    context = torch.randn(count, channels, size, size, size, generator=rng) * (1 - mask.sum(1, keepdim=True))
    return context, mask
