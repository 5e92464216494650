"""Training crops around lesions, for generators: real lesions, and hosts to paint one into.

Sample n is drawn with a generator seeded by (seed, n), whoever asks for it and when: a training that was interrupted
goes on with exactly the samples that it would have seen, with any number of workers.
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from synthaug.classes import Classes
from synthaug.data.cases import Case, load_case
from synthaug.data.maps import host_of_case
from synthaug.generators.learned.flow import channel_mixing
from synthaug.generators.learned.style import StylePrior, channel_correlations, lesion_style, present_classes
from synthaug.geometry import cube_around, drawn_symmetry, turned
from synthaug.host import HostSample
from synthaug.host.space import Space
from synthaug.insertion.render import one_hot
from synthaug.random import sample_stream


@dataclass(frozen=True)
class LesionVolume:
    """A case in model intensities.

    Attributes:
        image: (C, X, Y, Z) float16, z-scores of host tissue.
        classes: (X, Y, Z) uint8, 0 for no lesion, k + 1 for class k; lesion outside the tissue is left out.
        tissue: (X, Y, Z) bool.
        background: (C,) float32, model intensity of what was 0 in the file.
        voxels: flat addresses (n,) int64 of the voxels of each class.
    """

    image: Tensor
    classes: Tensor
    tissue: Tensor
    background: Tensor
    voxels: tuple[Tensor, ...]


def read_lesion_volume(
    case: Case, channels: Sequence[str], classes: Classes, space: Space | None = None
) -> LesionVolume:
    """Load a case and bring it to model intensities, those of `space` or of skull-stripped images.

    Raises:
        CaseError: as `synthaug.data.cases.load_case` raises.
        ValueError: a label value that the classes do not have.
    """
    volume = load_case(case, channels)
    space = space or Space()
    given = None if space == Space() else torch.from_numpy(host_of_case(case, volume, space, channels, classes))
    volume = replace(volume, label=space.rule.lesions_of(volume.label))
    image, label = torch.from_numpy(volume.image), torch.from_numpy(volume.label).long()
    if problem := classes.strange_values(label):
        raise ValueError(f"{case.name}: {problem}")
    host = HostSample.of(image, label, given, fixed=space.units.statistics(channels))
    index = torch.from_numpy(classes.index_map(volume.label)) * host.tissue
    voxels = tuple((index == k + 1).flatten().nonzero()[:, 0] for k in range(len(classes)))
    z = space.units.clipped(host.to_model(image), channels)
    outside = host.to_model(torch.zeros_like(host.mean)) if given is None else z.flatten(1).amin(1)
    return LesionVolume(z.half(), index, host.tissue, outside, voxels)


def fit_style_prior(volumes: Sequence[LesionVolume], classes: int, channels: int) -> StylePrior:
    """Fit the Gaussian over the styles of whole lesions, one style a case."""
    prior = StylePrior(classes, channels)
    prior.fit(*_of_whole_lesions(lesion_style, volumes, classes))
    return prior


def fit_channel_mixing(volumes: Sequence[LesionVolume], classes: int) -> Tensor:
    """Fit the (2, K, C, C) of `synthaug.generators.learned.flow.channel_mixing` to whole lesions."""
    return channel_mixing(*_of_whole_lesions(channel_correlations, volumes, classes))


def _of_whole_lesions(
    measure: Callable[[Tensor, Tensor], Tensor], volumes: Sequence[LesionVolume], classes: int
) -> tuple[Tensor, Tensor]:
    """Measure images and masks, (P, ...) for P cases, and which classes each case has, (P, K)."""
    found, present = [], []
    for volume in volumes:
        mask = one_hot(volume.classes, classes)[None]
        found.append(measure(volume.image.float()[None], mask)[0])
        present.append(present_classes(mask)[0])
    return torch.stack(found), torch.stack(present)


@dataclass(frozen=True)
class CropOptions:
    """Sizes and probabilities (0 to 1) of training crops.

    Attributes:
        sizes: sides of the cubic crops in voxels and how often each is used, relative.
        transplant: probability that the painted lesion goes into another place than the real one's, in a style
            drawn from the prior, with a mask scaled by 0.4 to 1 half of the time.
        swap: probability that a transplanted mask has two classes swapped.
        zoom: probability that a crop is resampled by a factor of 0.8 to 1.25.
        drop_channels: probability that some channels are withheld.
        intensity: largest relative change of a channel's scale, and change of its mean in standard deviations.
        rare: share of samples centred on a class drawn uniformly, in place of one drawn by volume.
    """

    sizes: Mapping[int, float]
    transplant: float = 0.4
    swap: float = 0.2
    zoom: float = 0.2
    drop_channels: float = 0.3
    intensity: float = 0.1
    rare: float = 0.7


class LesionCrops(Dataset):
    """Crops for training a generator.

    Sample n is a dictionary: ``real`` (C, s, s, s) and its ``real_mask`` (K, s, s, s); ``host`` (C, s, s, s) and the
    ``mask`` (K, s, s, s) to paint; the ``style`` (K, C, 3) to paint it in; ``available`` (C,); ``transplant`` (),
    1 where host and mask are not the real crop's own. All float32.

    Args:
        cases: cases with lesions; one without any raises.
        channels: canonical channel names.
        classes: lesion classes.
        options: sizes and probabilities of the samples.
        seed: seed of the whole sequence.
        group: samples per step; those of one step have one crop size.
        cache: number of cases kept in memory.
        prior_cases: number of cases, the first ones, that the style prior is fitted to.
        prior: a style prior to use in place of fitting one.
        space: host rule and units of a profile; those of skull-stripped images where not given.

    Raises:
        ValueError: no case, or a case whose lesion is empty (when it is read).
    """

    def __init__(
        self,
        cases: Sequence[Case],
        channels: Sequence[str],
        classes: Classes,
        options: CropOptions,
        seed: int = 0,
        group: int = 1,
        cache: int = 64,
        prior_cases: int = 64,
        prior: StylePrior | None = None,
        space: Space | None = None,
    ):
        self.space = space or Space()
        if not cases:
            raise ValueError("training crops: expected at least one case, got none")
        self.cases, self.channels, self.classes = list(cases), tuple(channels), classes
        self.options, self.seed, self.group = options, seed, group
        self.cache: OrderedDict[int, LesionVolume] = OrderedDict()
        self.cache_size, self.prior_cases = cache, prior_cases
        if prior is None:
            prior = fit_style_prior(self.fitted_volumes(), len(classes), len(self.channels))
        self.prior = prior

    def fitted_volumes(self) -> list[LesionVolume]:
        """Read the first `prior_cases` cases, to which the style prior is fitted."""
        return [self.volume(i) for i in range(min(self.prior_cases, len(self.cases)))]

    def volume(self, index: int) -> LesionVolume:
        """Read a case, once, and keep it while it is among the `cache` cases used last."""
        if index not in self.cache:
            self.cache[index] = self._read(index)
            if len(self.cache) > self.cache_size:
                self.cache.popitem(last=False)
        self.cache.move_to_end(index)
        return self.cache[index]

    def _read(self, index: int) -> LesionVolume:
        volume = read_lesion_volume(self.cases[index], self.channels, self.classes, self.space)
        if not any(len(v) for v in volume.voxels):
            raise ValueError(f"{self.cases[index].name}: no lesion of {self.classes!r} in it; leave such cases out")
        return volume

    def crop_size(self, step: int) -> int:
        """Draw the side of the crops of one step."""
        draw = torch.rand((), generator=sample_stream(self.seed, -1 - step)).item() * sum(self.options.sizes.values())
        bounds = itertools.accumulate(self.options.sizes.values())
        return next((s for s, b in zip(self.options.sizes, bounds, strict=True) if draw < b), max(self.options.sizes))

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        rng, size = sample_stream(self.seed, n), self.crop_size(n // self.group)
        volume = self.volume(_integer(rng, len(self.cases)))
        real, mask, _ = self._crop(volume, _lesion_voxel(volume, self.options.rare, rng), size, rng)
        transplant = _chance(rng, self.options.transplant)
        if transplant:
            other = self.volume(_integer(rng, len(self.cases)))
            host, _, tissue = self._crop(other, _healthy_voxel(other, rng), size, rng)
            painted = self._transformed(mask, rng) * tissue
            noise = torch.randn((1, self.prior.noise_size()), generator=rng)
            style = self.prior.sample(noise)[0]
        else:
            host, painted, style = real, mask, lesion_style(real[None], mask[None])[0]
        available = self._availability(rng)
        flags = available[:, None, None, None]
        return {
            "real": real * flags,
            "real_mask": mask,
            "host": host * flags,
            "mask": painted,
            "style": style,
            "available": available,
            "transplant": torch.tensor(float(transplant)),
        }

    def _crop(self, volume: LesionVolume, center: Tensor, size: int, rng: torch.Generator):
        """Cut one augmented crop: image (C, s, s, s), mask (K, s, s, s) and tissue (1, s, s, s)."""
        zoom = 0.8 + 0.45 * torch.rand((), generator=rng).item() if _chance(rng, self.options.zoom) else 1.0
        side = round(size / zoom)
        image = cube_around(volume.image, center.tolist(), side, volume.background.half()).float()
        labels = torch.stack((volume.classes, volume.tissue.to(torch.uint8)))
        index, tissue = cube_around(labels, center.tolist(), side, torch.zeros(2, dtype=torch.uint8))
        if side != size:
            image = F.interpolate(image[None], size=(size,) * 3, mode="trilinear")[0]
            index, tissue = (
                F.interpolate(x[None, None], size=(size,) * 3, mode="nearest-exact")[0, 0] for x in (index, tissue)
            )
        mask = one_hot(index, len(self.classes))
        stacked = turned(torch.cat((image, mask, tissue[None].float())), *drawn_symmetry(rng)).contiguous()
        image, mask, tissue = stacked.split((len(image), len(mask), 1))
        scale = 1 + self.options.intensity * (2 * torch.rand((len(image), 1, 1, 1), generator=rng) - 1)
        shift = self.options.intensity * (2 * torch.rand((len(image), 1, 1, 1), generator=rng) - 1)
        return image * scale + shift, mask, tissue

    def _transformed(self, mask: Tensor, rng: torch.Generator) -> Tensor:
        """Give a mask another layout: scaled half of the time, two classes swapped now and then."""
        if _chance(rng, 0.5):
            scale = 0.4 + 0.6 * torch.rand((), generator=rng).item()
            theta = torch.eye(3, 4)[None] / scale
            grid = F.affine_grid(theta, [1, *mask.shape], align_corners=False)
            mask = F.grid_sample(mask[None], grid, mode="nearest", align_corners=False)[0]
        if _chance(rng, self.options.swap) and len(mask) > 1:
            a, b = torch.randperm(len(mask), generator=rng)[:2].tolist()
            order = list(range(len(mask)))
            order[a], order[b] = b, a
            mask = mask[order]
        return turned(mask, *drawn_symmetry(rng)).contiguous()

    def _availability(self, rng: torch.Generator) -> Tensor:
        """Draw the channels that are there, (C,): all, or a random subset that is not empty."""
        available = torch.ones(len(self.channels))
        if _chance(rng, self.options.drop_channels):
            available = torch.randint(0, 2, available.shape, generator=rng).float()
            available[_integer(rng, len(available))] = 1
        return available


class StepSampler(Sampler[int]):
    """Indices of one process, from a step on: step * group + rank * batch + i for i below batch.

    Args:
        first: step to begin with.
        last: step to end before.
        batch: samples per process and step.
        rank: number of this process.
        processes: number of processes.
    """

    def __init__(self, first: int, last: int, batch: int, rank: int = 0, processes: int = 1):
        self.first, self.last, self.batch, self.rank, self.processes = first, last, batch, rank, processes

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first, self.last):
            start = (step * self.processes + self.rank) * self.batch
            yield from range(start, start + self.batch)

    def __len__(self) -> int:
        return max(0, self.last - self.first) * self.batch


def _integer(rng: torch.Generator, below: int) -> int:
    return int(torch.randint(below, (), generator=rng))


def _chance(rng: torch.Generator, probability: float) -> bool:
    return bool(torch.rand((), generator=rng) < probability)


def _lesion_voxel(volume: LesionVolume, rare: float, rng: torch.Generator) -> Tensor:
    """Draw a voxel (3,) of a class drawn uniformly (`rare` of the time), or of the whole lesion."""
    known = [v for v in volume.voxels if len(v)]
    pool = known[_integer(rng, len(known))] if _chance(rng, rare) else torch.cat(known)
    return _unflatten(pool[_integer(rng, len(pool))], volume.tissue.shape)


def _healthy_voxel(volume: LesionVolume, rng: torch.Generator) -> Tensor:
    """Draw a voxel (3,) of tissue without lesion; after 64 misses whatever came last."""
    for flat in torch.randint(volume.tissue.numel(), (64,), generator=rng):
        center = _unflatten(flat, volume.tissue.shape)
        if volume.tissue[tuple(center)] and not volume.classes[tuple(center)]:
            break
    return center


def _unflatten(flat: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.stack(torch.unravel_index(flat, tuple(shape)))
