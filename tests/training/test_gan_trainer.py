"""Training crops, losses and the GAN trainer: exact resume, several processes, what a run leaves behind."""

import pytest
import torch
from engine import CHANNELS
from generator_runs import TinyRuns, assert_same

from synthaug import BRATS18, BRATS24
from synthaug.config import ConfigError
from synthaug.data import CaseError, find_cases
from synthaug.generators.learned.hub import load_generator
from synthaug.generators.learned.style import lesion_style
from synthaug.training import painting_losses as losses
from synthaug.training.gan_config import GANConfig
from synthaug.training.lesion_crops import CropOptions, LesionCrops, StepSampler, read_lesion_volume
from synthaug.training.run import read_metrics


@pytest.fixture(scope="module")
def cases(phantom_folder):
    return find_cases(phantom_folder)[:3]  # the fourth has no tumour


@pytest.fixture(scope="module")
def crops(cases):
    return LesionCrops(cases, CHANNELS, BRATS18, CropOptions({32: 1, 48: 1}, zoom=0.5), seed=7, group=2)


# ----------------------------------------------------------------------------------------------------- crops


def test_a_sample_depends_on_its_number_alone(cases, crops):
    fresh = LesionCrops(cases, CHANNELS, BRATS18, crops.options, seed=7, group=2, cache=1)
    for n in (11, 3, 8, 3):
        for name, value in crops[n].items():
            assert torch.equal(value, fresh[n][name]), name
    other = LesionCrops(cases, CHANNELS, BRATS18, crops.options, seed=8, group=2, prior=crops.prior)
    assert not torch.equal(other[3]["style"], crops[3]["style"])


def test_samples_of_a_step_have_one_size_and_all_sizes_occur(crops):
    sizes = [[crops[2 * step + i]["real"].shape[-1] for i in range(2)] for step in range(12)]
    assert all(a == b for a, b in sizes)
    assert {a for a, _ in sizes} == {32, 48}


def test_what_a_sample_holds(crops):
    seen = {0: 0, 1: 0}
    for n in range(24):
        sample = crops[n]
        moved = int(sample["transplant"])
        seen[moved] += 1
        flags = sample["available"]
        assert flags.sum() >= 1 and set(flags.tolist()) <= {0.0, 1.0}
        for name in ("real", "host"):
            assert (sample[name][flags == 0] == 0).all() and sample[name].isfinite().all()
        for name in ("mask", "real_mask"):
            assert sample[name].sum(0).max() <= 1
        assert sample["real_mask"].sum() > 0, "a crop without lesion teaches nothing"
        if not moved:
            assert torch.equal(sample["real"], sample["host"]) and torch.equal(sample["mask"], sample["real_mask"])
            measured = lesion_style(sample["real"][None], sample["mask"][None])[0][:, flags == 1]
            assert torch.equal(measured, sample["style"][:, flags == 1])
    assert min(seen.values()) >= 4


def test_intensities_are_z_scores_of_the_host(cases):
    volume = read_lesion_volume(cases[0], CHANNELS, BRATS18)
    host = volume.image.float()[:, volume.tissue & (volume.classes == 0)]
    assert host.mean(1).abs().max() < 0.15 and (host.std(1) - 1).abs().max() < 0.3
    outside = volume.image.float()[:, ~volume.tissue]
    assert ((outside - volume.background[:, None]).abs() < 0.01).float().mean() > 0.99


def test_rare_classes_are_oversampled(cases):
    def share_of_centres(rare):
        crops = LesionCrops(cases, CHANNELS, BRATS18, CropOptions({32: 1}, rare=rare, zoom=0, transplant=0))
        centres = [crops[n]["real_mask"][:, 15:17, 15:17, 15:17].sum((1, 2, 3)).argmax() for n in range(60)]
        return torch.bincount(torch.stack(centres), minlength=3) / 60

    by_volume, uniform = share_of_centres(0.0), share_of_centres(1.0)
    assert uniform.min() > 0.15
    assert uniform.min() > by_volume.min()


def test_unfit_cases_are_named(phantom_folder, cases, tmp_path):
    with pytest.raises(ValueError, match="Phantom_003_1: no lesion"):
        LesionCrops(find_cases(phantom_folder), CHANNELS, BRATS18, CropOptions({32: 1}))
    with pytest.raises(ValueError, match=r"label values \[4\] are not in two"):
        read_lesion_volume(cases[0], CHANNELS, type(BRATS18)("two", {"NCR": 1, "ED": 2}))
    with pytest.raises(CaseError, match="ct"):
        read_lesion_volume(cases[0], ("ct",), BRATS24)
    with pytest.raises(ValueError, match="at least one case"):
        LesionCrops([], CHANNELS, BRATS18, CropOptions({32: 1}))


def test_ranks_share_the_samples_of_a_step():
    ranks = [list(StepSampler(3, 6, 2, rank, 2)) for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == list(range(12, 24))
    assert list(StepSampler(0, 6, 2, 1, 2))[6:] == ranks[1]
    assert len(StepSampler(3, 6, 2)) == 6


# ---------------------------------------------------------------------------------------------------- losses


def lesion_pair():
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 2, 24, 24, 24)
    mask[:, 0, 4:20, 4:20, 4:12] = 1
    mask[:, 1, 4:20, 4:20, 12:20] = 1
    return torch.randn(1, 3, 24, 24, 24, generator=rng), mask, torch.ones(1, 3)


def test_style_loss_is_zero_for_the_style_itself_and_feels_each_number():
    image, mask, available = lesion_pair()
    style = lesion_style(image, mask)
    assert losses.style_loss(image, mask, style, available) < 1e-6
    for change in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]):
        assert losses.style_loss(image, mask, style + torch.tensor(change), available) > 0.2
    other = style.clone()
    other[:, :, 1] += 1
    hidden = available.clone()
    hidden[:, 1] = 0
    assert losses.style_loss(image, mask, other, hidden) < 1e-6, "a channel that is not there has no say"


def test_texture_is_judged_by_power_not_voxel_by_voxel():
    image, mask, available = lesion_pair()
    redrawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    assert losses.band_loss(redrawn, image, mask, available) < 0.25
    assert losses.band_loss(0.5 * image, image, mask, available) > 1
    assert losses.band_loss(image, image, mask, available) == 0


def test_shell_surrounds_the_lesion():
    lesion = torch.zeros(1, 1, 16, 16, 16)
    lesion[..., 6:10, 6:10, 6:10] = 1
    around = losses.shell(lesion, 3)
    assert around.sum() == 10**3 - 4**3 and (around * lesion).sum() == 0


def test_hinge_is_at_rest_where_the_critic_is_sure():
    region = torch.ones(2, 1, 8, 8, 8)
    sure, unsure = torch.full((2, 1, 4, 4, 4), 1.5), torch.zeros(2, 1, 4, 4, 4)
    assert losses.critic_hinge([sure], [-sure], region, region) == 0
    assert losses.critic_hinge([unsure], [unsure], region, region) == 2
    assert losses.painter_hinge([sure], region) == -1.5
    empty = torch.zeros_like(region)
    assert losses.critic_hinge([unsure], [unsure], empty, empty) == 0, "patches without lesion have no say"


# --------------------------------------------------------------------------------------------------- trainer

RUNS = TinyRuns("gan", GANConfig, ("loss.adversarial_from=1", "painter.widths=[8,8,8,16]"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    RUNS.command(out)
    return out


def test_a_run_leaves_what_it_says(whole):
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["step_00000004", "step_00000006"]
    assert sorted(p.name for p in (whole / "demos").iterdir()) == ["step_00000003.png", "step_00000006.png"]
    assert any((whole / "tensorboard").rglob("events*"))
    table = read_metrics(whole)
    assert [row["step"] for row in table] == [0, 2, 4, 6]
    assert {"loss", "style", "adversarial", "critic", "halo", "skipped"} <= table[-1].keys()
    generator = load_generator(whole / "generator")
    assert (generator.channels, generator.classes) == (CHANNELS, BRATS18.names)


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same_weights(whole, tmp_path):
    RUNS.killed(tmp_path)
    RUNS.run(tmp_path)
    assert_same(tmp_path, whole)


def test_a_continued_run_must_be_of_the_same_configuration(whole):
    with pytest.raises(ConfigError, match=r"painter\.lr was 0\.001 and is 0\.5"):
        RUNS.run(whole, "painter.lr=0.5")


def test_a_run_can_be_made_longer(whole, tmp_path):
    RUNS.run(tmp_path, "optimizer.steps=4", "optimizer.decay_from=1")
    RUNS.run(tmp_path)
    assert_same(tmp_path, whole)
    written = (tmp_path / "config.yaml").read_text()
    assert written == (whole / "config.yaml").read_text(), "the one that it ended with"
    with pytest.raises(ConfigError, match=r"optimizer\.steps: expected 6 or more.* got 5"):
        RUNS.run(tmp_path, "optimizer.steps=5")
    assert (tmp_path / "config.yaml").read_text() == written


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    RUNS.by_two_processes(tmp_path)
    assert (tmp_path / "checkpoints" / "step_00000003" / "rank_1.json").exists()
    assert load_generator(tmp_path / "generator").channels == CHANNELS
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 2, 3]


@pytest.mark.slow
def test_two_processes_of_which_one_was_killed_go_on_to_the_same_weights(tmp_path):
    changes = ("data.batch=1", "demo.every=6")
    RUNS.in_two(tmp_path / "whole", *changes)
    RUNS.killed_among_two(tmp_path / "killed", *changes)
    RUNS.in_two(tmp_path / "killed", *changes)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("crops.sizes={40: 1}", "multiples of 16"),
        ("painter.widht=3", "widths"),
        ("painter.head=8", "more than two features a channel"),
        ("data.validation=[Phantom_009_1]", "Phantom_009_1"),
        ("data.classes=BRATS77", "BRATS77"),
    ],
)
def test_wrong_configurations_say_what_was_expected(change, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        RUNS.run(tmp_path, change)
