"""The copy-paste generator: the donor's own intensities, moved to the host's scale. No weights."""

from collections.abc import Sequence

from torch import Tensor

from synthaug.generators.base import TumorGenerator


class PasteGenerator(TumorGenerator):
    """Pastes the donor's z-scores as the host's.

    Donor intensities are z-scores of the donor's host tissue, the host's are z-scores of its own, and the model space
    is the same for both, so the donor's voxels are the result; class swaps have already moved them to the new class's
    statistics (`synthaug.insertion.render.recoloured`) and the blending gives them their soft edge.

    Example:
        >>> import torch
        >>> donor, mask = torch.ones(1, 4, 16, 16, 16), torch.ones(1, 3, 16, 16, 16)
        >>> torch.equal(PasteGenerator().generate(torch.zeros_like(donor), mask, [7], donor), donor)
        True
    """

    needs_donor = True

    def generate(
        self,
        context: Tensor,
        mask: Tensor,
        seeds: Sequence[int],
        donor: Tensor | None = None,
        support: Tensor | None = None,
    ) -> Tensor:
        """Return the donors' crops.

        Raises:
            ValueError: no donor intensities were given.
        """
        if donor is None:
            raise ValueError("paste needs the donors' intensities: give lesions=LesionBank(...), not masks alone")
        return donor
