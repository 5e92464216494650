"""nnU-Net: where in their cases and hosts its patches lie, and insertion before its changes of intensity."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunet_data import CT, MR, REGIONS, make_trainer, seeded

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.intensity.inversion import InvertImageTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from synthaug.adapters.frames import coordinates
from synthaug.adapters.nnunet.hosts import case_affine
from synthaug.adapters.nnunet.intensities import split
from synthaug.adapters.nnunet.tracking import PLACES, TrackedTransforms, TrackingLoader
from synthaug.adapters.nnunet.trainer import InsertionMixin, nnUNetTrainerSynthAug
from synthaug.adapters.tracking import IDENTITY
from synthaug.config import ConfigError
from synthaug.frames import host_frame, place, voxel
from synthaug.lesions.base import center_of

pytest_plugins = ["nnunet_fixtures"]
pytestmark = pytest.mark.usefixtures("nnunet")

SURE = {"prob": 1.0, "second": 0.0, "scale": [0.4, 0.6], "decay_from": None, "decay_to": None}
HOME = SURE | {"place": "home", "shift_mm": 0.0, "mirror": False}
PATIENT = "^(patient[0-9]+)_"


def spatial(size=(24, 20, 28), **options):
    chosen = {"p_rotation": 1, "rotation": (-0.5, 0.5), "p_scaling": 1, "scaling": (0.7, 1.4)} | options
    return SpatialTransform(size, 0, False, p_synchronize_scaling_across_axes=0, **chosen)


PIPELINES = {
    "crop": [spatial(p_rotation=0, p_scaling=0)],
    "affine": [spatial()],
    "rotation": [spatial(p_scaling=0)],
    "mirror": [spatial(p_rotation=0, p_scaling=0), MirrorTransform((0, 1, 2))],
    "all": [spatial(), RandomTransform(Rot90Transform(1), 0.7), RandomTransform(MirrorTransform((0, 2)), 0.5)],
    "pseudo 2-D": [
        Convert3DTo2DTransform(),
        spatial((20, 28)),
        Convert2DTo3DTransform(),
        MirrorTransform((0, 1, 2)),
    ],
}


@pytest.mark.parametrize("name", PIPELINES)
def test_maps_are_those_that_an_image_of_coordinates_goes_through(name):
    transforms = PIPELINES[name]
    shape = (24 if name == "pseudo 2-D" else 36, 32, 40)
    probe = coordinates(IDENTITY, shape)
    for seed in range(6):
        seeded(seed)
        plain = ComposeTransforms(transforms)(image=probe.clone(), segmentation=torch.zeros(1, *shape))["image"]
        seeded(seed)
        follow = TrackedTransforms(transforms)
        follow.start = (5, -3, 2)
        found = follow(image=probe.clone(), segmentation=torch.zeros(1, *shape))
        assert set(found) == {"image", "segmentation"} and torch.equal(found["image"], plain)
        middle = tuple(n // 2 for n in plain.shape[1:])
        for at in (middle, tuple(m - 3 for m in middle), tuple(m + i for i, m in enumerate(middle))):
            before = plain[:, *at].numpy() + np.array([5, -3, 2])
            assert np.abs(place(follow.maps[0], at) - before).max() < 0.05


def test_of_an_elastic_change_the_affine_part_is_followed():
    shape = (36, 32, 40)
    transform = spatial(p_elastic_deform=1, elastic_deform_scale=(0.2, 0.3), elastic_deform_magnitude=(2, 3))
    follow, off = TrackedTransforms([transform]), []
    for seed in range(5):
        seeded(seed)
        probe = follow(image=coordinates(IDENTITY, shape), segmentation=torch.zeros(1, *shape))["image"]
        off.append(np.abs(place(follow.maps[-1], [12, 10, 14]) - probe[:, 12, 10, 14].numpy()).max())
    assert max(off) < 3


def test_what_cannot_be_followed_is_named():
    class Forgetful(BasicTransform):
        """Moves voxels, and tells nothing of it."""

    for one in (Forgetful(), RandomTransform(Forgetful(), 0.1), ComposeTransforms([Forgetful()])):
        with pytest.raises(ConfigError, match="insertion: place: Forgetful cannot be followed"):
            TrackedTransforms([one])
    with pytest.raises(ValueError, match="Rot90Transform of 2-D patches cannot be followed"):
        TrackedTransforms([Rot90Transform(1)])(image=torch.rand(1, 8, 8), segmentation=torch.zeros(1, 8, 8))


@settings(max_examples=12, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    transpose=st.permutations([0, 1, 2]),
)
@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
def test_axes_of_arrays_are_those_of_the_patient_for_every_reader(reader, order, signs, transpose, tmp_path_factory):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * (1.0, 2.0, 3.0)[axis]
    rng = np.random.default_rng(0)
    volume = np.zeros((7, 8, 9), np.float32)
    volume[1:5, 1:7, 3:8] = rng.random((4, 6, 5))
    file = tmp_path_factory.mktemp("orientation") / "case_0000.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), file)
    array, properties = reader().read_images((str(file),))
    array = array[0].transpose(transpose)
    spacing = [properties["spacing"][i] for i in transpose]
    frame = host_frame(array > 0, case_affine(properties, transpose, spacing))
    expected = host_frame(volume > 0, affine)
    brightest = [np.array(np.unravel_index(a.argmax(), a.shape)) for a in (array, volume)]
    assert np.allclose(place(frame, brightest[0]), place(expected, brightest[1]))


def started(trainer):
    seeded(0)
    trainer.on_train_start()
    return trainer


def same_share(cases, case, to_case, label):
    """Share of a patch's label that is the case's at the voxels that the map leads to."""
    stored = np.array(cases.load_case(case)[1][:])[0]
    voxels = np.argwhere(np.ones(label.shape[1:]))
    source = np.rint(place(to_case, voxels)).astype(int)
    inside = ((source >= 0) & (source < stored.shape)).all(1)
    assert inside.mean() > 0.3
    return (label[0].numpy().ravel()[inside] == stored[tuple(source[inside].T)]).mean()


@pytest.mark.parametrize("dataset", [MR, CT])
def test_patches_lie_in_their_cases_where_the_loader_says(dataset, configured):
    host = {"labels": ["liver"], "range": {"ct": [0, 150]}} if dataset == CT else {}
    configured(dataset, host=host, classes=["tumour"] if dataset == CT else None, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, dataset))
    cases = trainer.get_tr_and_val_datasets()[0]
    assert isinstance(trainer.dataloader_train.data_loader, TrackingLoader)
    for _ in range(6):
        batch = next(trainer.dataloader_train)
        assert batch[PLACES].shape == (2, 3, 4)
        for case, to_case, label in zip(batch["keys"], batch[PLACES].numpy(), batch["target"], strict=True):
            assert same_share(cases, case, to_case, label) > 0.97
    assert PLACES not in next(trainer.dataloader_val)


def boxed(label):
    """Middle of the box of a lesion."""
    where = np.argwhere(label > 0)
    return (where.min(0) + where.max(0)) / 2


def test_the_strong_augmentation_is_followed_and_its_intensities_stay_in_the_workers(configured):
    class Both(InsertionMixin, nnUNetTrainerDA5):
        pass

    configured(group_pattern=PATIENT, insertion=HOME)
    trainer = started(make_trainer(Both, MR))
    assert trainer.intensities is None and "intensities: device does not know" in Path(trainer.log_file).read_text()
    cases, shares = trainer.get_tr_and_val_datasets()[0], []
    for _ in range(10):
        batch = next(trainer.dataloader_train)
        for case, to_case, label in zip(batch["keys"], batch[PLACES].numpy(), batch["target"], strict=True):
            shares.append(same_share(cases, case, to_case, label))
    assert np.median(shares) > 0.97 and min(shares) > 0.9


def test_workers_in_processes_say_so_too(configured, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    configured(group_pattern=PATIENT, insertion=HOME)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    batch = next(trainer.dataloader_train)
    trainer.dataloader_train._finish()
    trainer.dataloader_val._finish()
    frames = trainer.frames(batch)
    assert batch[PLACES].shape == (2, 3, 4) and all(np.isfinite(f).all() for f in frames)


def test_hosts_and_donors_have_the_coordinates_of_the_files(configured, nnunet):
    configured(group_pattern=PATIENT, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    bank = trainer.insertion.engine.lesions
    for lesion in bank:
        case = lesion.name.split("/")[0]
        stored = nib.load(nnunet / "raw" / MR / "labelsTr" / f"{case}.nii.gz")
        image = nib.load(nnunet / "raw" / MR / "imagesTr" / f"{case}_0000.nii.gz").get_fdata()
        frame = host_frame(image != image[0, 0, 0], stored.affine)
        of_file = place(frame, boxed(stored.get_fdata()))
        assert np.abs(center_of(lesion, bank.margin_vox) - of_file).max() < 0.06
        own = voxel(trainer.host_frames[case], of_file)
        label = np.array(trainer.get_tr_and_val_datasets()[0].load_case(case)[1][:])[0]
        assert np.linalg.norm(own - boxed(label)) < 2.0


def test_donors_go_home(configured):
    configured(group_pattern=PATIENT, insertion=HOME, classes={"NCR": 1, "ED": 2, "ET": 3})
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
    engine, done = trainer.insertion.engine, 0
    for _ in range(12):
        batch = next(trainer.dataloader_train)
        view = trainer.insertion.task.view(batch["target"])
        groups = [trainer.insertion.group_of(case) for case in batch["keys"]]
        plan = engine.plan(batch["data"], view, groups=groups, frames=trainer.frames(batch))
        _, label = trainer.insertion(batch["data"], batch["target"], batch["keys"], trainer.frames(batch))
        for row in plan.to_rows():
            if row["outcome"] != "done":
                continue
            done += 1
            b, lesion = row["sample"], engine.lesions.lesion(row["lesion"])
            assert row["place"] == "home" and row["donor_group"] != row["host_group"]
            # the place by the case's own array, not by the patch's frame
            to_case, case = batch[PLACES][b].numpy(), batch["keys"][b]
            at = place(to_case, row["center_vox"])
            home = voxel(trainer.host_frames[case], center_of(lesion, engine.lesions.margin_vox))
            assert np.linalg.norm(at - home) < 1.8
            assert (label[b] != batch["target"][b]).any()
    assert done >= 3


def test_by_default_lesions_lie_where_the_banks_lay_and_anywhere_where_asked(configured):
    for rule, expected in ((None, "like-data"), ("anywhere", "anywhere")):
        configured(group_pattern=PATIENT, insertion=SURE | {"place": rule}, record=True)
        trainer = started(make_trainer(nnUNetTrainerSynthAug, MR))
        assert (trainer.host_frames is not None) == (rule is None)
        batch = next(trainer.dataloader_train)
        view = trainer.insertion.task.view(batch["target"])
        plan = trainer.insertion.engine.plan(batch["data"], view, frames=trainer.frames(batch))
        assert {row["place"] for row in plan.to_rows()} == {expected}


def test_a_trainer_with_another_loader_is_refused(configured):
    class Other(nnUNetTrainer):
        def get_dataloaders(self):
            return None, None

    class Both(InsertionMixin, Other):
        pass

    configured(group_pattern=PATIENT, insertion=HOME)
    trainer = make_trainer(Both, MR)
    trainer.enable_deep_supervision = False
    with pytest.raises(ConfigError, match=r"tumour_free: expected a trainer that loads with nnUNetDataLoader; .*Other"):
        trainer.on_train_start()


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["labels", "regions"])
def test_intensities_change_after_the_insertion(labels, configured, monkeypatch):
    configured(group_pattern=PATIENT, classes={"NCR": 1, "ED": 2, "ET": 3}, insertion=SURE)
    trainer = started(make_trainer(nnUNetTrainerSynthAug, MR, labels))
    kept = [type(t) for t in trainer.dataloader_train.data_loader.transforms.transforms]
    assert kept == [SpatialTransform, MirrorTransform, MaskImageTransform]
    assert [change.prob for change in trainer.intensities.changes] == [0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3]
    seen = []
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, batch: seen.append(batch) or {"loss": np.zeros(1)})
    order, insertion, intensities = [], trainer.insertion, trainer.intensities
    monkeypatch.setattr(trainer, "insertion", lambda *a: order.append("insertion") or insertion(*a))
    monkeypatch.setattr(trainer, "intensities", lambda *a: order.append("intensities") or intensities(*a))
    for _ in range(3):
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)
        assert (seen[-1]["data"][(batch["target"] < 0).expand_as(batch["data"])] == 0).all()
    assert order == ["insertion", "intensities"] * 3
    assert any(not torch.equal(given["data"].mean((2, 3, 4)), batch["data"].mean((2, 3, 4))) for given in seen)


def test_a_change_that_is_not_known_leaves_all_to_the_workers(configured):
    class Inverting(nnUNetTrainer):
        def get_training_transforms(self, *args, **kwargs):
            found = super().get_training_transforms(*args, **kwargs)
            found.transforms.insert(2, RandomTransform(InvertImageTransform(0.5, False, 0.5), 0.1))
            return found

    class Both(InsertionMixin, Inverting):
        pass

    configured(group_pattern=PATIENT, insertion=SURE)
    trainer = started(make_trainer(Both, MR))
    assert trainer.intensities is None
    assert "intensities: device does not know InvertImageTransform" in Path(trainer.log_file).read_text()


FIXED = {
    "brightness": MultiplicativeBrightnessTransform(1.2, False),
    "contrast": ContrastTransform(0.8, True, False),
    "gamma": GammaTransform(1.3, 0, False, 1, 1),
    "inverted gamma": GammaTransform(0.8, 1, False, 1, 1),
    "low resolution": SimulateLowResolutionTransform(0.6, False, True, None),
    "low resolution in planes": SimulateLowResolutionTransform(0.6, False, True, (0,)),
    "blur": GaussianBlurTransform(0.8, False, False, 1),
}


@pytest.mark.parametrize("name", FIXED)
def test_changes_are_those_of_nnunet(name):
    image = torch.randn(2, 3, 20, 18, 22).cumsum(-1)
    _, changes = split([RandomTransform(FIXED[name], 1.0)])
    found = changes(image, torch.zeros(2, 1, 20, 18, 22))
    expected = torch.stack([FIXED[name](image=sample.clone())["image"] for sample in image])
    inner = (slice(None), slice(None), *[slice(4, -4)] * 3) if name == "blur" else ...
    assert torch.allclose(found[inner], expected[inner], atol=0.02 * float(image.std()))
    assert not torch.allclose(found, image, atol=0.05)


def test_noise_is_as_strong_and_falls_on_as_many_samples_as_nnunets():
    _, changes = split([RandomTransform(GaussianNoiseTransform(0.08, 1, True), 0.25)])
    seeded(0)
    image = torch.zeros(400, 2, 8, 8, 8)
    spread = changes(image, torch.zeros(400, 1, 8, 8, 8)).std((2, 3, 4))
    noisy = spread > 0
    assert (noisy[:, 0] == noisy[:, 1]).all() and 0.18 < noisy.float().mean() < 0.32
    assert abs(float(spread[noisy].mean()) - 0.08) < 0.002


def test_each_sample_is_changed_on_its_own_account():
    _, changes = split([RandomTransform(MultiplicativeBrightnessTransform((0.5, 0.9), False, 0.5), 0.5)])
    seeded(1)
    found = changes(torch.ones(200, 2, 4, 4, 4), torch.zeros(200, 1, 4, 4, 4))[:, :, 0, 0, 0]
    assert 0.15 < (found != 1).float().mean() < 0.35 and len(found.unique()) > 50


def test_pseudo_2d_patches_are_tracked_and_changed_on_the_device_too():
    made = nnUNetTrainer.get_training_transforms((12, 24, 20), (-3, 3), None, (0, 1, 2), True, [True, True]).transforms
    kept, changes = split(made[:-1])
    assert len(changes.changes) == 7 and [type(t) for t in kept[:3]] == [type(t) for t in PIPELINES["pseudo 2-D"][:3]]
    seeded(3)
    segmentation = torch.zeros(1, 12, 30, 26, dtype=torch.int16)
    found = TrackedTransforms(kept)(image=torch.randn(2, 12, 30, 26), segmentation=segmentation)
    new = changes(found["image"][None], found["segmentation"][None])
    assert new.shape == (1, 2, 12, 24, 20)
    # planes stay whole where resolution is lowered
    low = split([RandomTransform(SimulateLowResolutionTransform(0.5, False, True, (0,)), 1.0)])[1]
    image = torch.randn(1, 1, 12, 1, 1).expand(1, 1, 12, 24, 20)
    assert torch.allclose(low(image, torch.zeros(1, 1, 12, 24, 20)), image, atol=1e-5)
