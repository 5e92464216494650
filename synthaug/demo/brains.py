"""The demo's patients: donors of lesions, and hosts, one of which has a tumour of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthaug.data.nifti import LabelledVolume
from synthaug.data.phantoms.phantom import phantom_case
from synthaug.progress import shown

DONORS, HOSTS = 2, 3
SEED_STRIDE = 100


@dataclass(frozen=True)
class Brain:
    """One patient.

    Attributes:
        name: name of the patient, who is a patient group of its own.
        volume: raw intensities (C, X, Y, Z), label (X, Y, Z) with the values of `BRATS18`; axes to the right, to the
            front and up.
    """

    name: str
    volume: LabelledVolume

    @property
    def has_tumour(self) -> bool:
        """Whether the patient has a tumour of their own."""
        return bool(self.volume.label.any())

    def sample(self) -> tuple[str, str, np.ndarray, np.ndarray, tuple[float, float, float]]:
        """Give the patient as `LesionBank.from_arrays` takes it."""
        return self.name, self.name, self.volume.image, self.volume.label, self.volume.spacing_mm


def nilearn_is_missing() -> bool:
    """Tell whether nilearn, which has the MNI152 anatomy, is not installed."""
    try:
        import nilearn  # noqa: F401
    except ImportError:
        return True
    return False


def demo_brains(seed: int, simple: bool) -> tuple[list[Brain], list[Brain]]:
    """Make donors, all with a tumour, and hosts, of which the last one has a tumour."""
    make = _maker(simple)
    first = SEED_STRIDE * seed
    tumours = [True] * DONORS + [i == HOSTS - 1 for i in range(HOSTS)]
    numbers = range(DONORS + HOSTS)
    volumes = [make(first + i, tumour=tumours[i]) for i in shown(numbers, "brains", "brain")]
    donors = [Brain(f"donor-{i + 1}", volume) for i, volume in enumerate(volumes[:DONORS])]
    hosts = [Brain(f"host-{i + 1}", volume) for i, volume in enumerate(volumes[DONORS:])]
    return donors, hosts


def _maker(simple: bool) -> Callable[..., LabelledVolume]:
    if simple:
        return phantom_case
    from synthaug.data.phantoms.mni import mni_phantom

    return mni_phantom
