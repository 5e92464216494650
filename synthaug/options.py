"""Options of insertion, in one place: for `TumorInsertion`, YAML files, the command line, cohorts and nnU-Net.

An option has the same name, default, check and message wherever it is set.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationError, ValidationInfo, model_validator
from torch import Tensor

from synthaug.checks import checked_at_least, checked_probability, checked_range
from synthaug.config import Section, problem
from synthaug.lesions.scale import check_size_control

MAP_ENDINGS = (".nii", ".nii.gz", ".npy")


def _by(check: Callable[..., Any], *limits: float) -> BeforeValidator:
    """Make a pydantic validator of a check of `synthaug.checks`, which is told the name of the field."""

    def checked(value: Any, info: ValidationInfo) -> Any:
        return check(info.field_name, value, *limits)

    return BeforeValidator(checked)


def _whole(name: str, value: Any, low: int = 0) -> Any:
    number = checked_at_least(name, value, low)
    return value if isinstance(value, int) else number


def _range(name: str, value: Any) -> tuple[float, float]:
    return checked_range(name, value)


def _ranges(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: checked_range(f"{name}[{key}]", pair) for key, pair in value.items()}


def _swaps(name: str, value: Any) -> tuple[tuple[str, str, float], ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name}: expected triples (from, to, probability), got {value!r}")
    for swap in value:
        if isinstance(swap, str) or not isinstance(swap, Sequence) or len(swap) != 3:
            raise ValueError(f"{name}: expected triples (from, to, probability), got {swap!r}")
    return tuple((a, b, checked_probability(f"{name}: {a} -> {b}", prob)) for a, b, prob in value)


def _shares(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a share of each class, for example {{'ED': {{'t1': 0.5}}}}, got {value!r}")
    return {
        key: _shares(f"{name}[{key}]", share)
        if isinstance(share, dict)
        else checked_probability(f"{name}[{key}]", share)
        for key, share in value.items()
    }


def _map(name: str, value: Any) -> Any:
    file = str(value) if isinstance(value, str | Path) else None
    if not callable(value) and not (file and file.endswith(MAP_ENDINGS)):
        raise ValueError(
            f"{name}: expected a file in each case's folder ({', '.join(MAP_ENDINGS)}) or a function of a sample's "
            f"image and label, got {value!r}"
        )
    return file or value


Probability = Annotated[float, _by(checked_probability)]
NotNegative = Annotated[float, _by(checked_at_least)]
Range = Annotated[tuple[float, float], _by(_range)]
Map = Annotated[str | Callable[[Tensor, Tensor], Tensor], _by(_map)]


class LesionOptions(Section):
    """Options of a lesion's size, classes, shape and place.

    Attributes:
        scale: range of the linear scale, or a fixed factor; (1, 1) where neither it nor `diameter_mm` is given.
        diameter_mm: instead of `scale`, range of the diameter of the sphere of equal volume, in mm.
        scale_after_swap: other scales where a class was swapped away, for example ``{"ED": (0.1, 0.3)}``.
        swaps: class swaps (from, to, probability); they act on the lesion's original classes.
        swap_draw: ``"joint"``, one event for all swaps, or ``"each"``, one event per swap.
        class_mix: instead of `swaps`, target shares of the inserted voxels per class.
        clearance_mm: no existing label within this distance of a lesion.
        tissue_share: share of a lesion that must lie in host tissue; what sticks out is cut off.
        min_voxels: volume floor; smaller lesions are refused.
        flip: probability of a mirror image per axis.
        rotate90: draw right-angle rotations.
        rotate_deg: greatest free rotation about each axis, in degrees.
        elastic_mm: greatest displacement of an elastic change of shape.
        halo_mm: width of the support around the lesion, where the image but not the label changes.
        edge_vox: width of the soft edge inside the support.
        edge_texture: give the soft edge back the strength of fine texture that a mean of two textures loses.
        fringe_mm: width of a fringe around the lesion into which its look fades, while the label stays: outlines are
            drawn inside of what is bright. A donor brings its surroundings, 3 voxels of them; generators that paint are
            given the lesion grown so far, which the soft edge and the fringe fade by one ramp.
        ignore_label: a label value outside the classes that may occur, such as -1; it is avoided like a lesion.
        host: where lesions may lie, for batches that come without: a function of a sample's image (C, X, Y, Z) and
            label (X, Y, Z) that returns its mask (X, Y, Z), called for samples that get a lesion alone; or, where
            whole cases are read, the name of a file in the folder of each case's images (`synthaug.data.maps`).
        prior: weights of a lesion's centre, at least 0, likewise.
        place: where lesions go. ``"like-data"``: as often where the source's own lesions lay, clear of existing labels;
            ``"home"``: each donor to its own place, in place of what is there, label included, without clearance, as
            it lay there, so that `flip` and `rotate90` do not count; both for batches that come with `frames`.
            ``"own"``: one of the host's own lesions, drawn by size, is painted anew in place, `scale` about its middle,
            and healed where it shrinks; turns do not count (`synthaug.insertion.own`).
            ``"anywhere"`` in host tissue, clear of existing labels. By default like-data, where lesions' places and
            the batch's frames are known, else anywhere.
        shift_mm: greatest displacement from a donor's own place, along each axis.
        mirror: whether a donor's own place may be that on the other side of the mid-plane, half of the time.
        style: whose look a lesion gets. For ``place="own"`` and generators that need a donor that of a ``"donor"``,
            class by class, or ``"host"``, its own, which `contrast` then changes. Trained generators draw a look; they
            are asked for that of a lesion of the bank of looks by ``"low-grade"``, ``"high-grade"``, ``"like-mask"``,
            of one whose classes and size are like the mask's, or the name of a lesion or patient
            (`synthaug.insertion.looks`).
        contrast: range of a factor, log-uniform, by which each class's intensities in each channel are multiplied about
            the mean of host tissue; None for none.
        contrast_shift: greatest shift of each class's intensities in each channel, in standard deviations of host
            tissue.
        avoid_fluid: leave fluid out of host tissue, where MR shows it (`synthaug.host.fluid`).
        rim_mm: keep lesions' voxels further than this from the edge of host tissue.
        mass_effect_mm: how far tissue at the lesion's outline is pushed outwards, smoothly and less with the distance,
            up to four times as far from it (`synthaug.insertion.push`); labelled voxels and the tissue's edge stay.
        smooth_mm: standard deviation of a smoothing of the lesion's outline, which keeps its volume; classes inside
            stay as they are.
        show_through: share of the host's structure under a class that shows through it, by class, for all channels or
            by channel, ``{"ED": {"t1": 0.5}}`` (`synthaug.insertion.show_through`).
    """

    scale: Range | None = None
    diameter_mm: Range | None = None
    scale_after_swap: Annotated[dict[str, tuple[float, float]], _by(_ranges)] | None = None
    swaps: Annotated[tuple[tuple[str, str, float], ...], _by(_swaps)] = ()
    swap_draw: Literal["joint", "each"] = "joint"
    class_mix: dict[str, float] | None = None
    clearance_mm: NotNegative = 3.0
    tissue_share: Probability = 0.9
    min_voxels: Annotated[int, _by(_whole, 1)] = 27
    flip: Probability = 0.5
    rotate90: bool = True
    rotate_deg: NotNegative = 0.0
    elastic_mm: NotNegative = 0.0
    halo_mm: NotNegative = 0.0
    edge_vox: NotNegative = 1.0
    edge_texture: bool = False
    fringe_mm: NotNegative = 0.0
    ignore_label: int | None = None
    host: Map | None = None
    prior: Map | None = None
    place: Literal["like-data", "home", "own", "anywhere"] | None = None
    shift_mm: NotNegative = 5.0
    mirror: bool = True
    style: str = "donor"
    contrast: Range | None = None
    contrast_shift: NotNegative = 0.0
    avoid_fluid: bool = False
    rim_mm: NotNegative = 0.0
    mass_effect_mm: NotNegative = 0.0
    smooth_mm: NotNegative = 0.0
    show_through: Annotated[dict[str, float | dict[str, float]], _by(_shares)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self):
        check_size_control(self.scale, self.diameter_mm, self.scale_after_swap)
        if self.swaps and self.class_mix:
            raise ValueError(
                f"give swaps or class_mix, not both; got swaps={list(self.swaps)}, class_mix={self.class_mix}"
            )
        if self.place == "own" and (self.class_mix or self.diameter_mm is not None):
            raise ValueError(
                "place: own takes swaps and scale; class_mix and diameter_mm need lesions known beforehand"
            )
        if self.place == "own" and (self.mass_effect_mm or self.smooth_mm or self.fringe_mm):
            raise ValueError(
                "place: own paints a lesion where it lies; mass_effect_mm, smooth_mm and fringe_mm are for others"
            )
        if self.place == "own" and self.style == "like-mask":
            raise ValueError("style: like-mask needs lesions known beforehand, which place: own does not have")
        if self.place == "own" and self.style == "host" and self.swaps:
            raise ValueError("style: host goes without swaps, which need the look of a donor's classes")
        return self

    @property
    def files(self) -> dict[str, str]:
        """File names of `host` and `prior`, where they are files of each case."""
        maps = {"host": self.host, "prior": self.prior}
        return {name: value for name, value in maps.items() if isinstance(value, str)}

    @property
    def engine_options(self) -> dict[str, Any]:
        """Keyword arguments of `TumorInsertion` in a section that has more than these."""
        return {name: getattr(self, name) for name in InsertionOptions.model_fields if name in type(self).model_fields}


def refuse_files(options: LesionOptions) -> None:
    """Refuse options `host` and `prior` that are files, where no whole cases are read.

    Raises:
        ValueError: one of them is a file.
    """
    for name, file in options.files.items():
        raise ValueError(
            f"{name}: {file} is a file of whole cases, which only `synthaug insert` and cohorts read; patches take a "
            "function"
        )


class InsertionOptions(LesionOptions):
    """All options of `TumorInsertion` but its lesions, generator, classes and channels.

    Attributes:
        prob: probability of a lesion per sample.
        second: probability of another lesion in a sample that was to get one.
        seed: decides every draw; nothing touches the global generators.

    Example:
        >>> options = InsertionOptions.checked(prob=0.5, scale=(0.3, 0.8), swaps=[("ED", "ET", 0.7)])
        >>> options.scale, options.min_voxels
        ((0.3, 0.8), 27)
    """

    prob: Probability = 0.6
    second: Probability = 0.4
    seed: Annotated[int, _by(_whole)] = 0

    @classmethod
    def checked(cls, **options: Any) -> "InsertionOptions":
        """Check keyword arguments and make options of them.

        Raises:
            ValueError: one that is out of range or unknown, or two that exclude each other; in one line for each.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise ValueError("; ".join(problem(item, cls) for item in error.errors())) from error
