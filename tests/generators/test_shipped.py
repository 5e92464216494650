"""The weights that come with the package: they load by name, are small, are described, and paint gliomas."""

import numpy as np
import pytest
import torch
from engine import CHANNELS, toy_batch

from synthaug import BRATS18, LesionShapes, TumorInsertion, load_generator
from synthaug.data import find_cases, load_case
from synthaug.generators.learned.hub import SHIPPED, WEIGHTS, shipped_generators

NAMES = shipped_generators()
LARGEST_MB = 12
SECTIONS = ("## Data and terms", "## How it was trained", "## Figures", "## Limits")


def nested_crop(size: int = 48) -> torch.Tensor:
    """A ball (1, 3, X, Y, Z) of necrosis in a rim of enhancing tumour in oedema."""
    axis = torch.arange(size) - size / 2 + 0.5
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    bounds = {"NCR": (0, 6), "ET": (6, 10), "ED": (10, 17)}
    return torch.stack([(radius >= bounds[c][0]) & (radius < bounds[c][1]) for c in BRATS18.names])[None].float()


def class_means(image: torch.Tensor, mask: torch.Tensor) -> dict[tuple[str, str], float]:
    """Mean of each class in each channel."""
    return {
        (name, channel): float(image[0, c][mask[0, k] > 0].mean())
        for k, name in enumerate(BRATS18.names)
        for c, channel in enumerate(CHANNELS)
    }


def test_weights_are_shipped():
    assert NAMES == ("brats-diffusion", "brats-gan")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_described(name):
    assert (SHIPPED / name / WEIGHTS).stat().st_size < LARGEST_MB * 1e6
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    assert all(section in card for section in SECTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_it_paints_what_gliomas_look_like(name):
    generator = load_generator(name).bind(CHANNELS, BRATS18.names)
    mask = nested_crop()
    host = 0.3 * torch.randn(1, 4, 48, 48, 48, generator=torch.Generator().manual_seed(0))
    seen = [class_means(generator.generate(host * (1 - mask.sum(1, keepdim=True)), mask, [s]), mask) for s in range(4)]
    mean = {key: np.mean([s[key] for s in seen]) for key in seen[0]}
    assert mean["ET", "t1ce"] > mean["NCR", "t1ce"] + 1 and mean["ET", "t1ce"] > mean["ED", "t1ce"] + 1
    assert mean["ED", "flair"] > 1 and mean["ED", "t2"] > 0.5
    assert mean["NCR", "t1"] < 0 and mean["NCR", "t2"] > 0.5
    assert np.std([s["ED", "flair"] for s in seen]) > 0.1, "one style for all seeds"


@pytest.mark.parametrize("name", NAMES)
def test_any_channels_in_any_order_without_a_donors_intensities(name):
    image, label = toy_batch(1, (64, 64, 64), channels=2, labelled=False)
    insert = TumorInsertion(LesionShapes(diameter_mm=(10, 16)), name, channels=("t2", "t1ce"), prob=1, second=0, seed=1)
    new_image, new_label = insert(image, label)
    assert insert.report().done == 1
    painted = (new_label != label)[:, 0]
    assert new_image[:, 0][painted].mean() > image[:, 0][painted].mean()


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_and_channels_are_refused_by_name(name):
    with pytest.raises(ValueError, match="NCR, ED, ET"):
        load_generator(name, classes=("tumour",))
    with pytest.raises(ValueError, match="flair, t1, t1ce, t2"):
        load_generator(name, channels=("ct",))


@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_on_a_real_brain_oedema_is_brighter_and_nothing_else_changes(name, real_data):
    volume = load_case(find_cases(real_data / "tumour_free")[0], CHANNELS, require_label=False)
    image = torch.from_numpy(volume.image)[None].float()
    label = torch.zeros((1, 1, *image.shape[2:]), dtype=torch.int16)
    insert = TumorInsertion(LesionShapes(diameter_mm=(30, 40)), name, prob=1, second=0, seed=2)
    new_image, new_label = insert(image, label, volume.spacing_mm)
    assert insert.report().done == 1
    inserted = new_label[0, 0] != 0
    assert torch.equal(new_image[:, :, ~inserted], image[:, :, ~inserted])
    oedema = new_label[0, 0] == BRATS18.values["ED"]
    assert new_image[0, 0][oedema].mean() > 1.2 * image[0, 0][oedema].mean()
