"""The GAN generator: one small network paints all channels of a lesion at once, from its classes and fresh noise.

After GliGAN (Ferreira et al. 2024, arXiv 2402.17317): the lesion's voxels are taken out, and a conditional GAN paints
them from noise and one-hot classes. Unlike there, one network makes all channels together, any subset of them may be
given, and crops have the size of the lesion.
"""

from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.styled import CROP_SIZES, StyledGenerator

__all__ = ["CROP_SIZES", "GANGenerator"]


class GANGenerator(StyledGenerator):
    """Paints lesions by a trained GAN's painter and its prior over styles; arguments as for `StyledGenerator`."""

    painter: Painter
