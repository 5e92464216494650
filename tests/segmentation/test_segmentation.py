"""The parts of the segmentation trainer: targets, networks, losses, optimisers, folds, postprocessing."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from synthaug import BRATS18, Classes
from synthaug.data import Case
from synthaug.data.folds import fold_split
from synthaug.segmentation.inference import InferenceConfig, predict_probabilities
from synthaug.segmentation.losses import TERMS, LossConfig, make_loss, output_weights
from synthaug.segmentation.networks import NETWORKS, AnyNetwork, SegmentationNetwork
from synthaug.segmentation.optim import OptimizerConfig, make_optimizer, make_scheduler
from synthaug.segmentation.postprocessing import PostprocessingConfig, to_label
from synthaug.segmentation.targets import Targets

REGIONS = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
BOTH = {"classes": Targets(BRATS18), "regions": Targets(BRATS18, REGIONS)}


def labels(seed=0, size=(2, 1, 8, 8, 8)):
    values = torch.tensor([0, 1, 2, 4])
    return values[torch.randint(0, 4, size, generator=torch.Generator().manual_seed(seed))]


# ---------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("targets", BOTH.values(), ids=BOTH)
def test_label_maps_survive_encoding(targets):
    label = labels()
    encoded = targets.encode(label)
    assert encoded.shape == (2, len(targets), 8, 8, 8)
    for sample, truth in zip(encoded, label[:, 0], strict=True):
        assert torch.equal(targets.decode(sample).long(), truth)


def test_regions_are_unions_and_stand_for_their_own_class():
    assert Targets(BRATS18, dict(reversed(REGIONS.items()))).names == BOTH["regions"].names == ("WT", "TC", "ET")
    assert BOTH["regions"].own == ("ED", "NCR", "ET") and BOTH["classes"].names == ("background", "NCR", "ED", "ET")
    label = torch.tensor([0, 1, 2, 4]).reshape(1, 1, 4, 1, 1)
    assert BOTH["regions"].encode(label)[0, :, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"WT": ("NCR", "ED", "ET")}, "one class that no smaller region has, got NCR, ED, ET"),
        ({"A": ("NCR", "ET"), "B": ("ET", "NCR"), "C": ("ED",)}, "got none"),
        ({"TC": ("NCR", "ET"), "ET": ("ET",)}, "ED is in no region"),
        ({"WT": ("XX",)}, "XX"),
    ],
)
def test_regions_that_do_not_tell_classes_apart_are_refused(regions, message):
    with pytest.raises(ValueError, match=message):
        Targets(BRATS18, regions)


def test_thresholds():
    p = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.3, 0.1], [0.1, 0.1, 0.5], [0.3, 0.4, 0.3]]).reshape(4, 3, 1, 1)
    decode = BOTH["classes"].decode
    assert decode(p).flatten().tolist() == [0, 4, 2]
    assert decode(p, {"ET": 0.3}).flatten().tolist() == [4, 4, 4]
    assert decode(p, {"ET": 0.6}).flatten().tolist() == [0, 1, 2]
    q = torch.tensor([0.9, 0.45, 0.4]).reshape(3, 1, 1, 1)
    assert BOTH["regions"].decode(q).item() == 2 and BOTH["regions"].decode(q, {"TC": 0.4}).item() == 1


# --------------------------------------------------------------------------------------- networks and losses

SMALL = {
    "DynUNet": {"filters": (4, 4, 8), "strides": (1, 2, 2), "deep_supervision": 1},
    "SegResNet": {"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)},
    "SegResNetDS": {"init_filters": 8, "blocks_down": (1, 1, 1), "deep_supervision": 1},
    "SwinUNETR": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 3},
    "UNETR": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2},
    "AttentionUnet": {"filters": (4, 8, 8), "strides": (2, 2)},
    "BasicUNetPlusPlus": {"features": (4, 4, 8, 8, 8, 4)},
}
SIZES = {"SwinUNETR": (64, 32, 32), "UNETR": (32, 32, 32), "BasicUNetPlusPlus": (32, 32, 16)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains(name):
    torch.manual_seed(0)
    config = TypeAdapter(AnyNetwork).validate_python({"name": name} | SMALL[name])
    size, targets = SIZES.get(name, (16, 16, 16)), BOTH["classes"]
    network = SegmentationNetwork(config, 2, len(targets), size)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    image, losses = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1)), []
    target = targets.encode(torch.tensor([0, 1, 2, 4])[(image[:, :1] > 0).long() + 2 * (image[:, 1:] > 0)])
    criterion = make_loss(LossConfig(), targets)
    for _ in range(3):
        heads = network(image)
        assert len(heads) == config.heads and heads[0].shape == (1, 4, *size)
        losses.append(criterion(heads, target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[2] < losses[0]
    found = predict_probabilities(network, image[0], targets, size, InferenceConfig())
    assert found.shape == (4, *size) and torch.allclose(found.sum(0), torch.ones(size), atol=1e-5)


@pytest.mark.parametrize("name", ["DynUNet", "BasicUNetPlusPlus", "SegResNetDS"])
def test_the_first_head_is_what_evaluation_gives(name):
    config = TypeAdapter(AnyNetwork).validate_python({"name": name} | SMALL[name])
    size = SIZES.get(name, (16, 16, 16))
    network, image = SegmentationNetwork(config, 2, 4, size), torch.randn(1, 2, *size)
    with torch.no_grad():
        assert torch.allclose(network.train()(image)[0], network.eval()(image), atol=1e-5)


def test_unknown_networks_list_the_known_ones_and_sizes_must_fit():
    with pytest.raises(ValidationError, match=r"known are DynUNet, SegResNet, .*BasicUNetPlusPlus"):
        TypeAdapter(AnyNetwork).validate_python({"name": "ResNet"})
    config = TypeAdapter(AnyNetwork).validate_python({"name": "UNETR"} | SMALL["UNETR"])
    with pytest.raises(ValueError, match="multiples of 16 for this UNETR"):
        SegmentationNetwork(config, 2, 4, (24, 32, 32))
    with pytest.raises(ValidationError, match="two fewer"):
        TypeAdapter(AnyNetwork).validate_python({"filters": (4, 4, 8), "strides": (1, 2, 2), "deep_supervision": 2})


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", TERMS)
def test_every_loss_is_learned_from_and_least_for_the_truth(name, kind):
    targets, label = BOTH[kind], labels(size=(2, 1, 12, 12, 12))
    label[:, :, 4:] = torch.tensor([0, 1, 2, 4]).repeat_interleave(3)[None, None, None, None]
    target = targets.encode(label)
    criterion = make_loss(LossConfig(name=name, targets=kind), targets)
    truth = target * 20 - 10
    network = nn.Conv3d(len(targets), len(targets), 1)
    optimizer, losses = torch.optim.Adam(network.parameters(), 0.1), []
    for _ in range(6):
        losses.append(criterion([network(target), network(target)], target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert all(loss.isfinite() for loss in losses) and losses[-1] < losses[0]
    assert criterion([truth, truth], target) < losses[-1] and criterion([-truth], target) > criterion([truth], target)


def test_class_weights():
    targets, label = BOTH["classes"], labels()
    config = LossConfig(name="ce", class_weights={"ET": 5.0})
    weights = output_weights(config.class_weights, targets)
    assert weights.tolist() == [1, 1, 1, 5]
    logits = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 3])[label[:, 0]], weights)
    # with one-hot targets PyTorch divides by the number of voxels, with indices by the sum of their weights
    total = weights[torch.tensor([0, 1, 2, 0, 3])[label[:, 0]]].mean()
    found = make_loss(config, targets, weights)(logits, targets.encode(label))
    assert found.item() == pytest.approx(float(expected * total), rel=1e-4)
    balanced = output_weights("balanced", targets, torch.tensor([800.0, 50, 100, 50]))
    assert balanced.tolist() == pytest.approx([50 / 800, 1, 0.5, 1])
    with pytest.raises(ValueError, match="XX is no output; they are background, NCR, ED, ET"):
        output_weights({"XX": 1.0}, targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dise"}, "'dice'.*'boundary'"),
        ({"name": "dice", "class_weights": {"ET": 2}}, "no cross-entropy"),
        ({"name": "dice_ce", "weights": (1.0,)}, "one for each of dice, ce"),
    ],
)
def test_losses_that_do_not_fit(options, message):
    with pytest.raises(ValidationError, match=message):
        LossConfig(**options)


# ----------------------------------------------------------------------------------- optimisers and schedules


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant", "plateau"])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_and_schedules(name, schedule):
    warmup = 0 if schedule == "plateau" else 2
    config = OptimizerConfig(steps=10, name=name, lr=0.1, schedule=schedule, warmup_steps=warmup, patience=1)
    network = nn.Linear(2, 1)
    optimizer = make_optimizer(config, network)
    scheduler, rates = make_scheduler(config, optimizer), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        network(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step(*([0.5] if schedule == "plateau" else []))
    if schedule == "plateau":  # the first score is the best; then two without a rise, again and again
        assert rates == pytest.approx([0.1] * 3 + [0.05] * 2 + [0.025] * 2 + [0.0125] * 2 + [0.00625])
        return
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    middle = {"poly": 0.5**0.9, "cosine": 0.5, "constant": 1.0}[schedule]
    assert rates[6] == pytest.approx(0.1 * middle)


def test_unknown_optimisers_and_schedules_list_the_known_ones():
    with pytest.raises(ValidationError, match="'adam', 'adamw' or 'sgd'"):
        OptimizerConfig(steps=1, name="lion")
    with pytest.raises(ValidationError, match="'poly', 'cosine', 'constant' or 'plateau'"):
        OptimizerConfig(steps=1, schedule="step")
    with pytest.raises(ValidationError, match="plateau schedule has none"):
        OptimizerConfig(steps=1, schedule="plateau", warmup_steps=5)


# ------------------------------------------------------------------------------- folds, inference, postprocessing


def test_folds_are_by_patient_and_cover_everybody_once():
    cases = [Case(f"{p}_{scan}", p, {}, None) for p in "abcdefg" for scan in (1, 2)]
    held = []
    for fold in range(3):
        train, validation = fold_split(cases, 3, fold, seed=4)
        assert {c.group for c in train}.isdisjoint({c.group for c in validation}) and len(train) + len(validation) == 14
        held += [c.name for c in validation]
    assert sorted(held) == sorted(c.name for c in cases)
    assert fold_split(cases, 3, 0, seed=5)[1] != fold_split(cases, 3, 0, seed=4)[1]
    for options, message in (((3, 3), "from 0 to 2"), ((8, 0), "at least 8 patients"), ((1, 0), "2 folds")):
        with pytest.raises(ValueError, match=message):
            fold_split(cases, *options)


class Lopsided(nn.Module):
    """Says more of class 1 towards the end of the first axis of a window, wherever the window is."""

    def forward(self, image):
        ramp = torch.linspace(-1, 1, image.shape[2])[None, None, :, None, None].expand(len(image), 1, *image.shape[2:])
        return torch.cat((torch.zeros_like(ramp), ramp), 1)


def test_mirroring_averages_over_the_mirror_images():
    targets, image = Targets(Classes("one", {"tumour": 1})), torch.zeros(1, 8, 8, 8)
    network = Lopsided().train()
    plain, mirrored = (
        predict_probabilities(network, image, targets, (8, 8, 8), InferenceConfig(mirror=mirror))
        for mirror in ((), (0, 2))
    )
    assert torch.allclose(mirrored, (plain + plain.flip(1)) / 2, atol=1e-6) and not torch.allclose(mirrored, plain)
    assert network.training
    with pytest.raises(ValidationError, match="each axis once"):
        InferenceConfig(mirror=(0, 0))


def test_postprocessing():
    targets, label = BOTH["classes"], torch.zeros(12, 12, 12, dtype=torch.int64)
    label[1:6, 1:6, 1:6], label[2:4, 2:4, 2:4] = 2, 4  # ET of 8 voxels within ED of 117
    label[9:11, 9:11, 9:11] = 1  # NCR of 8 voxels
    probabilities, image = targets.encode(label[None, None])[0] * 0.9, torch.ones(1, 12, 12, 12)

    def done(spacing_mm=(1.0, 1.0, 1.0), image=image, **options):
        return to_label(probabilities, image, targets, REGIONS, spacing_mm, PostprocessingConfig(**options))

    assert np.array_equal(done(), label)
    small_et = done(min_component_mm3={"ET": 9}, becomes={"ET": "NCR"})
    assert (small_et[2:4, 2:4, 2:4] == 1).all() and (small_et != label.numpy()).sum() == 8
    small_wt = done(min_component_mm3={"WT": 9})
    assert not small_wt[9:].any() and np.array_equal(small_wt[:8], label[:8])
    assert np.array_equal(done(min_component_mm3={"WT": 9}, spacing_mm=(1.0, 1.0, 2.0)), label)
    head = image.clone()
    head[:, :6] = 0
    assert not done(brain_mask=True, image=head)[:6].any() and done(brain_mask=True, image=head)[9:].any()
    assert not (done(thresholds={"ET": 0.95}) == 4).any()


def test_postprocessing_names_are_checked():
    for options in ({"thresholds": {"WT": 0.5}}, {"min_component_mm3": {"XX": 5}}):
        with pytest.raises(ValueError, match=r"unknown (WT|XX); known are .*ET"):
            PostprocessingConfig(**options).check(BOTH["classes"], REGIONS)
    with pytest.raises(ValueError, match="unknown YY"):
        PostprocessingConfig(min_component_mm3={"ET": 5}, becomes={"ET": "YY"}).check(BOTH["classes"], REGIONS)
    with pytest.raises(ValidationError, match="no min_component_mm3"):
        PostprocessingConfig(becomes={"ET": "NCR"})
