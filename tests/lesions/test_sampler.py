"""The learned sampler of masks: what is asked for holds, what was learned shows, and a file gives the same lesions."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from synthaug import BRATS18, LesionBank, LesionSampler, LesionShapes, TumorInsertion
from synthaug.cli.app import app
from synthaug.evaluation.privacy import copied
from synthaug.lesions.base import center_of
from synthaug.lesions.scale import SizeWeights
from synthaug.lesions.shape_model import ShapeModel, surface_of
from synthaug.sizes import SizeClasses, equivalent_diameter_mm

CPU = torch.device("cpu")


def ball(radius: int, core: int, seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """An oedema with a core of enhancing tumour, with dents."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.arange(48) - 24] * 3, indexing="ij")
    away = np.hypot(np.hypot(x, y * rng.uniform(0.8, 1.2)), z) + rng.normal(0, 0.6, x.shape)
    label = np.where(away < core, 4, np.where(away < radius, 2, 0)).astype(np.int16)
    return rng.normal(100, 10, (channels, 48, 48, 48)), label


@pytest.fixture(scope="module")
def bank() -> LesionBank:
    """Small lesions of oedema alone, large ones with a core."""
    cases = []
    for seed in range(8):
        radius, core = ((7, 0), (16, 8))[seed % 2]
        cases.append((f"case {seed}", f"p{seed}", *ball(radius, core, seed), (1, 1, 1)))
    return LesionBank.from_arrays(cases, BRATS18, ("t1ce",), per="case")


@pytest.fixture(scope="module")
def sampler(bank) -> LesionSampler:
    return LesionSampler.fit(bank)


def many(sampler: LesionSampler, count: int = 12):
    return [sampler.lesion(f"sampled:{n}") for n in range(count)]


def test_sizes_and_classes_go_together_as_in_the_bank(sampler):
    shares = {True: [], False: []}
    for lesion in many(sampler):
        large = equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm) > 22
        shares[large].append(lesion.voxels[2] / sum(lesion.voxels))
        assert lesion.voxels[0] == 0, "no lesion of the bank has necrosis"
    assert min(len(s) for s in shares.values()) >= 2
    assert max(shares[False]) == 0 and 0.05 < min(shares[True]) < max(shares[True]) < 0.35


def test_the_core_lies_inside(sampler):
    lesion = next(x for x in many(sampler) if x.voxels[2])
    mask = sampler.mask(lesion.name, CPU)
    assert ((mask == 3).nonzero().float().mean(0) - mask.nonzero().float().mean(0)).norm() < 4


@pytest.mark.parametrize("shares", [{"ED": 1.0}, {"NCR": 0.2, "ED": 0.5, "ET": 0.3}, {"ED": 3, "ET": 1}])
def test_diameter_and_shares_that_are_asked_for_hold(sampler, shares):
    asked = sampler.asked(diameter_mm=(24, 30), proportions=shares)
    total = sum(shares.values())
    for lesion in many(asked, 4):
        assert 24 <= equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm) <= 30 + 1e-6
        for name, voxels in zip(asked.classes, lesion.voxels, strict=True):
            assert voxels / sum(lesion.voxels) == pytest.approx(shares.get(name, 0) / total, abs=0.03)


def test_outlines_are_smoother_and_more_alike_on_request(sampler):
    def surface(irregularity: float) -> float:
        asked = sampler.asked(irregularity=irregularity, diameter_mm=(30, 30))
        fields = [asked.model.drawn(np.random.default_rng(n), 30.0, None, irregularity)[2][0] for n in range(6)]
        return float(np.mean([surface_of(odds) for odds in fields]))

    assert surface(0.0) < surface(1.0) < surface(2.5)


def test_lesions_are_one_piece_of_their_size_and_no_copies(sampler, bank):
    masks = [sampler.mask(x.name, CPU).numpy() for x in many(sampler)]
    for lesion, mask in zip(many(sampler), masks, strict=True):
        assert mask.shape == tuple(n + 2 * sampler.margin_vox for n in lesion.size_vox)
        assert np.bincount(mask.ravel(), minlength=4)[1:].tolist() == list(lesion.voxels)
    assert not any(copied(masks, [bank.mask(x.name, CPU).numpy() for x in bank]))
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_a_file_gives_the_same_lesions_without_a_mask_in_it(sampler, bank, tmp_path):
    bank.save(tmp_path / "bank.safetensors")
    told = CliRunner().invoke(app, ["bank", "sampler", str(tmp_path / "bank.safetensors"), "-o", str(tmp_path / "s")])
    assert told.exit_code == 0, told.output
    again = LesionSampler.load(tmp_path / "s")
    assert again.vocabulary == sampler.vocabulary
    for lesion in many(sampler, 3):
        assert again.lesion(lesion.name) == lesion
        assert torch.equal(again.mask(lesion.name, CPU), sampler.mask(lesion.name, CPU))
    with pytest.raises(ValueError, match="a file of LesionSampler"):
        LesionSampler.load(tmp_path / "bank.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        LesionSampler.load(tmp_path / "nothing")


def test_an_insertion_takes_its_file_and_repeats_from_rows(sampler, tmp_path):
    sampler.save(tmp_path / "s")
    insert = TumorInsertion(tmp_path / "s", "procedural", prob=1, second=0, diameter_mm=(12, 14))
    image, label = torch.rand(1, 4, 40, 40, 40), torch.zeros(1, 1, 40, 40, 40, dtype=torch.int16)
    new, after, plan = insert.recorded(image, label)
    row = plan.to_rows()[0]
    assert row["outcome"] == "done" and 11 < row["diameter_mm"] < 15 and row["lesion"].startswith("sampled:")
    again = TumorInsertion(tmp_path / "s", "procedural", prob=1, second=0, diameter_mm=(12, 14))
    assert torch.equal(again.apply(image, label, type(plan).from_rows([row]))[0], new)
    assert set(after.unique().tolist()) <= {0, 1, 2, 4}
    with pytest.raises(ValueError, match="LesionSampler has masks only"):
        TumorInsertion(tmp_path / "s", "paste")


@pytest.fixture(scope="module")
def placed(tmp_path_factory) -> LesionBank:
    """Lesions of three brains, in two of which they lie in front on the left, and large, in one behind, and small."""
    cases = []
    for seed, (middle, radius) in enumerate([((20, 50, 30), 12), ((22, 48, 30), 13), ((44, 16, 34), 6)] * 2):
        rng = np.random.default_rng(seed)
        x, y, z = np.meshgrid(*[np.arange(64)] * 3, indexing="ij")
        inside = ((x - 32) / 28) ** 2 + ((y - 32) / 30) ** 2 + ((z - 32) / 28) ** 2 < 1
        away = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2) + rng.normal(0, 0.5, x.shape)
        label = np.where((away < radius) & inside, 2, 0).astype(np.int16)
        image = np.where(inside, rng.normal(100, 10, (1, 64, 64, 64)), 0)
        cases.append((f"case {seed}", f"p{seed}", image, label, (2, 2, 2), None, np.diag([2.0, 2, 2, 1])))
    return LesionBank.from_arrays(cases, BRATS18, ("t1ce",), per="case")


def homes_of(lesions, margin: int) -> dict[bool, np.ndarray]:
    """Mean middle of the large and of the small lesions, in host coordinates."""
    found = {True: [], False: []}
    for lesion in lesions:
        large = equivalent_diameter_mm(sum(lesion.voxels), lesion.spacing_mm) > 30
        found[large].append(center_of(lesion, margin))
    return {large: np.mean(where, 0) for large, where in found.items()}


def test_sampled_lesions_have_the_places_of_those_that_they_are_like(placed, tmp_path):
    LesionSampler.fit(placed).save(tmp_path / "s")
    sampler = LesionSampler.load(tmp_path / "s")
    real, sampled = homes_of(placed, placed.margin_vox), homes_of(many(sampler, 24), sampler.margin_vox)
    for large in (True, False):
        assert np.abs(real[large] - sampled[large]).max() < 0.12  # the two lie 0.5 apart
    assert np.array_equal(sampler.places.grid, placed.places.grid)
    assert sampler.patients == tuple(sorted(placed.groups)) == sampler.asked(irregularity=0.5).patients
    # the box of a lesion is as large in its host as it is in mm: 56 and 60 voxels of 2 mm are the host's sides
    lesion = sampler.lesion("sampled:3")
    sides = np.abs(np.array(lesion.frame)[:, :3]).sum(1) / lesion.spacing_mm
    assert sides == pytest.approx(1 / np.array([112, 120, 112]), rel=0.1)


def test_an_insertion_brings_sampled_lesions_home(placed):
    insert = TumorInsertion(
        LesionSampler.fit(placed), "procedural", channels=("t1ce",), prob=1, second=0, place="home", mirror=False
    )
    image = torch.zeros(1, 1, 64, 64, 64)
    image[..., 4:60, 2:62, 4:60] = torch.rand(56, 60, 56) + 1
    frame = np.c_[np.diag(1 / np.array([56, 60, 56])), -np.array([3.5, 1.5, 3.5]) / [56, 60, 56]]
    label = torch.zeros(1, 1, 64, 64, 64, dtype=torch.int16)
    found = {True: [], False: []}
    for _ in range(12):
        _, after, plan = insert.recorded(image, label, spacing_mm=(2, 2, 2), frames=[frame])
        row = plan.to_rows()[0]
        assert row["outcome"] == "done"
        found[row["diameter_mm"] > 30].append(after[0, 0].nonzero().float().mean(0))
    # large ones in front on the left, small ones behind on the right
    large, small = (torch.stack(where).mean(0) for where in found.values())
    assert large[0] < 30 < 36 < small[0] and small[1] < 28 < 36 < large[1]


def test_sampled_lesions_are_painted_ahead_and_keep_their_places(placed, tmp_path):
    sampler = LesionSampler.fit(placed)
    painted = sampler.painted("procedural", 5, channels=("t1ce",), seed=3, spacing_mm=(2, 2, 2))
    assert len(painted) == 5 and not painted.groups and painted.channels == ("t1ce",)
    assert painted.painting["source"]["patients"] == sorted(placed.groups) and painted.painting["taught_on"] == []
    for lesion in painted:
        own = sampler.lesion(lesion.name.split(" ")[0])
        assert np.abs(center_of(lesion, 3) - center_of(own, 3)).max() < 0.03
        inside = painted.mask(lesion.name, CPU) > 0
        assert painted.intensities(lesion.name, [0], CPU)[0][inside].std() > 0
        # a class that no lesion has, has no statistics, in place of those of an empty mask
        assert painted.class_statistics(lesion.name, [0])[0][0].isnan().all()
    again = sampler.painted("procedural", 5, channels=("t1ce",), seed=3, spacing_mm=(2, 2, 2))
    assert again.checksum == painted.checksum != sampler.painted("procedural", 5, channels=("t1ce",)).checksum

    sampler.save(tmp_path / "s")
    call = ["bank", "paint", str(tmp_path / "s"), "--generator", "procedural", "-o", str(tmp_path / "b"), "-n", "2"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0 and "2 lesions of no patient" in done.output
    assert LesionBank.load(tmp_path / "b").channels == ("flair", "t1", "t1ce", "t2")


def test_a_file_from_before_places_were_kept_is_read(sampler, tmp_path):
    sampler.save(tmp_path / "s")
    with safe_open(tmp_path / "s", "pt") as file:
        header = json.loads(file.metadata()["sampler"])
        tensors = {key: file.get_tensor(key) for key in file.keys() if not key.startswith("home")}  # noqa: SIM118
    del header["patients"]
    save_file(tensors, tmp_path / "old", {"sampler": json.dumps(header | {"version": 1})})
    old = LesionSampler.load(tmp_path / "old")
    assert old.places is None and old.patients == () and old.lesion("sampled:4") == sampler.lesion("sampled:4")


def test_wrong_requests_are_named(sampler, bank):
    with pytest.raises(ValueError, match="positive sum"):
        sampler.asked(proportions={"ED": 0})
    with pytest.raises(ValueError, match="diameter_mm"):
        sampler.asked(diameter_mm=(30, 20))
    with pytest.raises(ValueError, match="expected sampled:<seed>"):
        sampler.lesion("shape:1")
    with pytest.raises(ValueError, match="three lesions or more"):
        LesionSampler.fit(bank.subset([next(iter(bank)).name]))
    with pytest.raises(ValueError, match="expected 3 names"):
        LesionSampler(sampler.model, ("ED",))
    with pytest.raises(ValueError, match="LesionSampler draws its own diameters"):
        TumorInsertion(sampler, "procedural").size_weights = SizeWeights(
            SizeClasses((10.0,), ("low", "high")), (1.0, 2.0)
        )


def test_it_learns_from_procedural_shapes_too():
    shapes = LesionShapes(diameter_mm=(20, 40))
    names = [f"shape:{n}" for n in range(4)]
    model = ShapeModel.fit([(shapes.mask(n, CPU), shapes.lesion(n).spacing_mm) for n in names], 3)
    assert model.components.shape[0] == 3 and model.classes == 3
