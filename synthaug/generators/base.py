"""The interface of appearance generators: crops in, crops with a tumour out, all in model intensities.

Model intensities are z-scores of host tissue, per sample and channel (`synthaug.host`). A generator never sees
labels, places or batches: it paints lesions into crops, and the insertion writes them back inside their support.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from synthaug.host.space import Space


class TumorGenerator(ABC):
    """Paints a lesion, given its surroundings and its classes.

    Attributes:
        channels: canonical channel names that the generator knows, or None where it works for any.
        classes: class names that it knows, or None where it works for any.
        crop_sizes: sides in voxels of the crops that it takes, ascending, or None where any box will do.
        cubic: whether a crop must have the same side along all axes; otherwise each axis has the least that will do.
        margin_vox: voxels of surroundings that it wants on each side of a lesion.
        space: the host rule and the units that it was made for, or None where it works in any.
        needs_donor: whether `generate` must be given the donor's intensities.
        needs_host: whether `generate` is given the host's tissue in the lesion's place too, in place of 0.
        needs_support: whether `generate` is told where its result will be used, as ``support``.

    Example:
        >>> import torch
        >>> class Bright(TumorGenerator):
        ...     def generate(self, context, mask, seeds, donor=None, support=None):
        ...         return torch.full_like(context, 3.0)
        >>> Bright().generate(torch.zeros(2, 4, 16, 16, 16), torch.ones(2, 3, 16, 16, 16), [1, 2]).shape
        torch.Size([2, 4, 16, 16, 16])
    """

    channels: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    crop_sizes: tuple[int, ...] | None = None
    cubic: bool = True
    margin_vox: int = 4
    space: Space | None = None
    needs_donor: bool = False
    needs_host: bool = False
    needs_support: bool = False

    @property
    def described(self) -> str:
        """What it is, for messages."""
        return f"the generator {type(self).__name__}"

    def bind(self, channels: tuple[str, ...], classes: tuple[str, ...]) -> "TumorGenerator":
        """Bind the generator to a batch's channels and classes, in this order; called once by `TumorInsertion`.

        Args:
            channels: canonical names of the batch's channels.
            classes: names of the mask's classes.

        Returns:
            A generator whose `generate` takes exactly these channels and classes; may be ``self``.

        Raises:
            ValueError: a channel or class that the generator does not know; the message names both sides.
        """
        for what, wanted, known in (("channels", channels, self.channels), ("classes", classes, self.classes)):
            if known is not None and not set(wanted) <= set(known):
                also = "; where these are the same tissues, name them so in `classes`" if what == "classes" else ""
                raise ValueError(
                    f"{type(self).__name__} knows the {what} {', '.join(known)}; the insertion has "
                    f"{', '.join(wanted)}{also}"
                )
        return self

    @abstractmethod
    def generate(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        donor: Tensor | None = None,
        support: Tensor | None = None,
    ) -> Tensor:
        """Paint N lesions of one crop size.

        The result for crop n depends on its own context, mask, seed and donor alone, bit for bit, whoever else
        is in the batch, and the global random state is left alone.

        Args:
            context: (N, C, X, Y, Z) float32, the host crops in model intensities, 0 where the lesion will be unless
                `needs_host`.
            mask: (N, K, X, Y, Z) float32, one-hot classes of the lesion; all 0 outside it.
            seeds: N integers in [0, 2**63).
            donor: (N, C, X, Y, Z) float32, the donors' intensities in the donors' model intensities, in place;
                only where `needs_donor`.
            support: (N, X, Y, Z) bool, the voxels of the result that will be used, the lesion's among them; only where
                `needs_support`.

        Returns:
            (N, C, X, Y, Z) float32 in model intensities; only voxels in the support are used.
        """
