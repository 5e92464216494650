"""Batches of the generators' trainers: crops of lesions with their noise, each a function of (seed, step, rank)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from synthaug import get_classes
from synthaug.data import Case
from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.style import StylePrior
from synthaug.training.generator_config import GeneratorConfig
from synthaug.training.lesion_crops import LesionCrops, StepSampler


def make_crops(
    config: GeneratorConfig, cases: list[Case], processes: int, prior: StylePrior | None = None
) -> LesionCrops:
    """Make the crops of the cases, with a style prior that is given or fitted to them."""
    data = config.data
    classes, group = get_classes(data.classes), data.batch * processes
    return LesionCrops(
        cases, data.channels, classes, config.crops.options(), config.seed, group, data.cache, data.prior_cases, prior
    )


def batches(crops: LesionCrops, config: GeneratorConfig, first: int, rank: int, processes: int) -> DataLoader:
    """Load the batches of this process from step `first` on."""
    sampler = StepSampler(first, config.optimizer.steps, config.data.batch, rank, processes)
    return DataLoader(
        crops,
        config.data.batch,
        sampler=sampler,
        num_workers=config.data.workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would take a number from the global one
    )


def prepare(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch to its device and add the masks and views that both losses need."""
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    batch["lesion"] = batch["mask"].sum(1, keepdim=True)
    batch["real_lesion"] = batch["real_mask"].sum(1, keepdim=True)
    batch["context"] = batch["host"] * (1 - batch["lesion"])
    moved = batch["transplant"][:, None, None, None, None]
    batch["own"] = 1 - moved
    # a lesion in a strange place has strange surroundings, which the painter cannot help: there, look inside only
    batch["view"] = 1 - moved * (1 - batch["lesion"])
    batch["real_view"] = batch["real"] * (1 - moved * (1 - batch["real_lesion"]))
    return batch


def noise_of(painter: Painter, batch: Mapping[str, Tensor], seed: int) -> list[Tensor]:
    """Draw noise images, on the CPU so that they do not depend on the device."""
    count, _, *size = batch["host"].shape
    generator = torch.Generator().manual_seed(seed)
    shapes = painter.noise_shapes(size)
    return [torch.randn((count, *s), generator=generator).to(batch["host"].device) for s in shapes]


def demo_batch(
    config: GeneratorConfig, cases: Sequence[Case], prior: StylePrior, device: torch.device
) -> dict[str, Tensor]:
    """Draw the fixed samples of the pictures, of cases that are not trained on where there are any."""
    classes, count = get_classes(config.data.classes), config.demo.count
    options = config.demo.options()
    crops = LesionCrops(cases, config.data.channels, classes, options, config.seed, count, prior=prior)
    return prepare(default_collate([crops[i] for i in range(count)]), device)
