"""What the configurations of trainings insert: what won in docs/when_it_pays.md, where the data is as there.

On skull-stripped brains these are the data's own lesions at their own places, varied; where few patients are labelled
and what ships knows such tumours, lesions of no patient. On other data they insert what the profile says.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from synthaug.channels import BRATS_CHANNELS
from synthaug.classes import BRATS18
from synthaug.data.cases import Case
from synthaug.lesions.sampler import LesionSampler
from synthaug.profile.labels import glioma_name
from synthaug.profile.profile import Generator, Profile
from synthaug.training.seen import seen_patients

FEW = 4
"""Labelled patients up to which lesions of others were seen to pay (docs/when_it_pays.md)."""

MASKS, PAINTER = "brats-masks", "brats-gan"
POOL = {"count": 60, "spacing_mm": [1.0, 1.0, 1.0]}
PAINTED = "painted.safetensors"
"""A bank of such lesions, for what paints no pool of its own; a generator that paints meanwhile refuses those that are
larger than its crops, about a third of them."""
PAINT = f"synthaug bank paint {MASKS} --generator {PAINTER} -n {POOL['count']} -o {{painted}}"
VARIED: dict[str, Any] = {
    "place": "home",
    "swaps": [],
    "elastic_mm": 4.0,
    "rotate_deg": 15.0,
    "shift_mm": 10.0,
    "decay_from": 0.6,
    "decay_to": 0.6,
}
OWN = VARIED | {"prob": 0.6, "second": 0.2, "scale": [0.5, 1.3], "contrast": [0.5, 2.0], "contrast_shift": 0.25}
"""The data's own lesions at their own places, varied, as in configs/segmentation_brats.yaml."""
LEARNED = VARIED | {"prob": 0.7, "second": 0.0, "scale": [0.7, 1.2], "contrast": [0.7, 1.4], "contrast_shift": 0.2}
"""Lesions of no patient, as in configs/trial_learned.yaml."""


def are_few(profile: Profile) -> bool:
    """Tell whether so few patients are labelled that lesions of others may bring more than their own."""
    return profile.data.patients <= FEW


def knows_such_lesions(profile: Profile) -> bool:
    """Tell whether the masks and the generator that ship are of such data: BraTS's gliomas on skull-stripped MR."""
    kinds = {glioma_name(name) for name in profile.labels.lesions}
    return profile.space.rule.stripped and {*BRATS_CHANNELS} == {*profile.names} and kinds == {*BRATS18.names}


def takes_learned(profile: Profile, cases: Sequence[Case]) -> bool:
    """Tell whether configurations insert lesions of no patient, by the masks and the generator that ship.

    They do where few gliomas are labelled, none of a patient whom those two have seen, and no generator was trained
    and recommended instead.
    """
    if not are_few(profile) or not knows_such_lesions(profile) or profile.generator != Generator():
        return False
    return not seen_patients(PAINTER, _masks(), cases)


@cache
def _masks() -> LesionSampler:
    """The masks that ship; page, configurations and terminal all ask whom they have seen."""
    return LesionSampler.load(MASKS)


def options(profile: Profile, learned: bool) -> dict[str, Any]:
    """Give the options that a training's insertion has in place of the profile's; none on data unlike that measured.

    Args:
        profile: of the data.
        learned: whether it takes lesions of no patient.
    """
    if not profile.space.rule.stripped:
        return {}
    chosen = dict(LEARNED if learned else OWN)
    if profile.insertion.get("rotate_deg") == 0.0:  # slices are thick
        del chosen["rotate_deg"]
    return chosen


def in_trainings(profile: Profile, cases: Sequence[Case]) -> str:
    """Say in words what the configurations of trainings insert."""
    if takes_learned(profile, cases):
        return f"lesions of no patient, by {MASKS} and {PAINTER}, at the places of lesions that they are like"
    if profile.space.rule.stripped:
        return "the data's own lesions at their own places, varied in size, shape, place and contrast"
    return "what the profile says, as all commands do"


def words(profile: Profile, cases: Sequence[Case]) -> str | None:
    """Say what few labelled patients may gain from; None where they are not few."""
    if not are_few(profile):
        return None
    patients = f"{profile.data.patients} labelled patients"
    if takes_learned(profile, cases):
        return (
            f"{patients}: the configurations insert lesions of no patient ({MASKS}, {PAINTER}), which brought more "
            "than their own: docs/howto/few.md"
        )
    shipped = f", for these gliomas with bank: {MASKS} and generator: {PAINTER}" if knows_such_lesions(profile) else ""
    return f"{patients} may gain from lesions of others{shipped}: docs/howto/few.md"
