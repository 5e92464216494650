"""What a batch comes with, completed: host and prior by the options, tissue by the host rule, the place rule."""

from dataclasses import replace

from synthaug.classes import Classes
from synthaug.host.rule import BLOCKED, HostRule
from synthaug.host.space import Space, warn_of_patches
from synthaug.insertion.batch import Batch, SampleMap
from synthaug.lesions.base import LesionSource
from synthaug.lesions.places import PlaceFrequency
from synthaug.options import InsertionOptions

LEAST_SPAN = 0.05
"""Share of the span of fixed units below which a batch's values are no intensities of files."""


class Surroundings:
    """Completes batches as an insertion's options, host rule and units say.

    Args:
        options: of the insertion.
        space: host rule and units.
        classes: vocabulary of the batches.
        channels: names of theirs.
    """

    def __init__(self, options: InsertionOptions, space: Space, classes: Classes, channels: tuple[str, ...]):
        self.options, self.space, self.classes, self.channels = options, space, classes, channels
        self.fixed = space.units.statistics(channels)
        self.blocked = BLOCKED if options.ignore_label is None else options.ignore_label
        self._units_seen = False

    def of_option(self, name: str, batch: Batch) -> SampleMap | None:
        """Choose the batch's `host` or `prior`, or the option of that name where the caller gave none.

        Raises:
            ValueError: the option is a file, which who reads cases has to give.
        """
        given, option = getattr(batch, name), getattr(self.options, name)
        if option is None or given is not None:
            return given
        if isinstance(option, str):
            raise ValueError(f"{name}: {option} is a file of each case; expected {name}=... with the batch")
        return lambda b: option(batch.image[b], batch.label[b])

    def place_of(self, batch: Batch, places: PlaceFrequency | None) -> str:
        """Choose the place rule for a batch.

        Raises:
            ValueError: one that needs frames, and the batch has none.
        """
        place = self.options.place
        if place is None:
            return "anywhere" if batch.frames is None or places is None else "like-data"
        if place in ("like-data", "home") and batch.frames is None:
            raise ValueError(
                f"place: {place} needs to know where in their hosts the samples lie; expected frames=... with the "
                "batch, see synthaug.frames.host_frame"
            )
        return place

    def with_rule(self, batch: Batch) -> Batch:
        """The batch as the host rule sees it: its tissue where the caller gave none, host labels as background."""
        self._check_units(batch)
        rule, image, label = self.space.rule, batch.image, batch.label
        if rule == HostRule():
            return batch
        batch = replace(batch, label=rule.view(label, self.blocked))
        if batch.host is not None:
            return batch
        if rule.needs_volume:
            warn_of_patches(rule)
        lesions = tuple(self.classes.values.values())
        return replace(batch, host=lambda b: rule.of_patch(image[b], label[b], self.channels, lesions))

    def _check_units(self, batch: Batch) -> None:
        """Check that a batch without statistics is in the intensities of the files, where units are fixed.

        On an accelerator that is looked at once, for looking makes the host wait.

        Raises:
            ValueError: it was normalised.
        """
        if self.fixed is None or batch.host_stats is not None or (self._units_seen and not batch.image.is_cpu):
            return
        self._units_seen = True
        for number, name in enumerate(self.channels):
            scale = self.space.units.fixed.get(name)
            if scale is None:
                continue
            low, high = (float(v) for v in batch.image[:, number].aminmax())
            if low < high and high - low < LEAST_SPAN * (scale.high - scale.low):
                raise ValueError(
                    f"image: expected {name} as in the files, where the profile found {scale.low:g} to {scale.high:g}; "
                    f"got values from {low:g} to {high:g}: insert before normalising, or give host_stats, the mean and "
                    "standard deviation that the profile's have in these units"
                )


def check_place(options: InsertionOptions, lesions: LesionSource, places: PlaceFrequency | None) -> None:
    """Check that lesions have the places that are asked for.

    Raises:
        ValueError: they have not.
    """
    place, source = options.place, type(lesions).__name__
    if place == "like-data" and places is None:
        raise ValueError(
            f"place: like-data needs to know where lesions lie, and this {source} does not: give places=..., or a "
            "bank of cases with affines"
        )
    if place == "home" and lesions.places is None:
        raise ValueError(
            f"place: home needs donors whose places are known, and this {source} has none: build a bank of cases "
            "with affines"
        )
