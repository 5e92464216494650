"""GliGAN's weights: MONAI 1.4's numbers, checkpoints found or refused, intensities there and back, the engine."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from engine import done_rows, toy_bank, toy_batch, toy_insertion
from make_gligan_reference import FEATURE_SIZE, INPUT_CHANNELS, REFERENCE, kept, reference_input, reference_state
from safetensors.torch import load_file, save_file
from torch import nn

from synthaug import BRATS18, BRATS24, single
from synthaug.generators.gligan.gligan import CHANNELS, GliGAN
from synthaug.generators.gligan.legacy_swin import legacy_swin_unetr

SMALL = {"feature_size": FEATURE_SIZE, "crop_sizes": (64,)}
RELEASED = "{}/weights/generator_400000.pt"


def small_state(in_channels=4, factor=1.0):
    state = reference_state(legacy_swin_unetr(in_channels, FEATURE_SIZE))
    return {name: value * factor if value.is_floating_point() else value for name, value in state.items()}


def write(folder: Path, name: str, content) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A small release: four channels with unlike weights, wrapped as the training script wraps them."""
    folder = tmp_path_factory.mktemp("release")
    for i, channel in enumerate(CHANNELS):
        content = {"global_step": 400000, "state_dict": small_state(factor=1 - i / 10), "G_optimizer": {"state": {}}}
        write(folder, RELEASED.format(channel), content)
    return folder


@pytest.fixture(scope="module")
def gligan(release) -> GliGAN:
    return GliGAN(release, **SMALL)


def crops(count=2, channels=4, side=64):
    """Host crops in z-scores with a skull-stripped edge, a ball of three classes in them, and seeds."""
    context = torch.randn(count, channels, side, side, side, generator=torch.Generator().manual_seed(1))
    context[..., :9] = -6.0
    axis = torch.arange(side) - side / 2
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    classes = torch.where(radius < 4, 0, torch.where(radius < 10, 1, 2))
    mask = torch.stack([(classes == k) & (radius < 14) for k in (0, 2, 1)]).float()
    mask = mask.expand(count, -1, -1, -1, -1)
    return context * (mask.sum(1, keepdim=True) == 0), mask, list(range(5, 5 + count))


class Recorder(nn.Module):
    """Stands in for a network: keeps its input and answers with a constant."""

    def __init__(self, answer: float = 0.0):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, x):
        self.seen.append(x.clone())
        return torch.full_like(x[:, :1], self.answer)


def recording(gligan, channels=("flair", "t1"), answer=0.0, classes=("NCR", "ED", "ET")):
    bound = gligan.bind(channels, classes)
    bound._networks = {channel: Recorder(answer) for channel in channels}
    return bound


@pytest.mark.parametrize("in_channels", INPUT_CHANNELS)
@torch.no_grad()
def test_equals_monai_1_4(in_channels):
    expected = load_file(REFERENCE)[f"in_channels_{in_channels}"]
    network = legacy_swin_unetr(in_channels, FEATURE_SIZE)
    network.load_state_dict(reference_state(network))
    got = kept(network(reference_input(in_channels)))
    assert expected.std() > 0.5
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_current_monai_loads_the_same_weights_and_differs():
    from monai.networks.nets import SwinUNETR

    expected = load_file(REFERENCE)["in_channels_2"]
    with torch.random.fork_rng():
        network = SwinUNETR(in_channels=2, out_channels=1, feature_size=FEATURE_SIZE).eval()
    network.load_state_dict(small_state(2))
    got = kept(network(reference_input(2)))
    assert (got - expected).std() > 0.05 * expected.std()


def test_the_released_size_has_62_million_parameters():
    assert sum(p.numel() for p in legacy_swin_unetr(4).parameters()) == 62_191_843


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("t1ce/weights/generator_7.pt", lambda s: {"state_dict": s, "global_step": 7}),
        ("t1c/generator_7.pth", lambda s: {f"module.{k}": v for k, v in s.items()}),
        ("generator_t1ce.pt", lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}),
        ("t1ce.safetensors", lambda s: {k: v.contiguous() for k, v in s.items()}),
    ],
)
def test_checkpoints_are_found_and_unwrapped(tmp_path, name, wrap):
    state = small_state()
    write(tmp_path, name, wrap(state))
    gligan = GliGAN(tmp_path, **SMALL)
    assert gligan.channels == ("t1ce",)
    loaded = gligan._networks["t1ce"].state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_the_latest_checkpoint_is_taken(tmp_path):
    for step, factor in ((9000, 0.5), (400000, 1.0), (30000, 0.7)):
        write(tmp_path, f"t2/weights/generator_{step}.pt", {"state_dict": small_state(factor=factor)})
    write(tmp_path, "t2/weights/discriminator_500000.pt", {"state_dict": {}})
    loaded = GliGAN(tmp_path, **SMALL)._networks["t2"].state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in small_state().items())


def test_missing_files_and_channels_are_named(tmp_path, release):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        GliGAN(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no checkpoint of t1ce, t1, t2, flair"):
        GliGAN(tmp_path)
    write(tmp_path, RELEASED.format("t1"), {"state_dict": small_state()})
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of flair; expected for example flair/weights"):
        GliGAN(tmp_path, channels=("t1", "flair"), **SMALL)
    with pytest.raises(ValueError, match="knows the channels t1; the insertion has t1, t2"):
        GliGAN(tmp_path, **SMALL).bind(("t1", "t2"), BRATS18.names)
    with pytest.raises(ValueError, match="knows the channels t1ce, t1, t2, flair; got ct"):
        GliGAN(release, channels=("ct",))


def test_other_architectures_are_refused_with_both_named(tmp_path, release):
    with pytest.raises(ValueError, match="expected a SwinUNETR of feature_size 48, got 12"):
        GliGAN(release)
    write(tmp_path, "t1.pt", {"conv.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"expected the weights of a SwinUNETR .* got the weights conv\.weight"):
        GliGAN(tmp_path, **SMALL)
    state = small_state()
    write(tmp_path, "t1.pt", state | {"encoder1.more": torch.zeros(2)})
    with pytest.raises(
        ValueError, match=r"another architecture than SwinUNETR with 4 .*unexpected \['encoder1.more'\]"
    ):
        GliGAN(tmp_path, **SMALL)
    write(tmp_path, "t1.pt", state | {"out.conv.conv.weight": torch.zeros(3, 12, 1, 1, 1)})
    with pytest.raises(ValueError, match=r"expected out\.conv.* \(1, 12, 1, 1, 1\), got \(3, 12, 1, 1, 1\)"):
        GliGAN(tmp_path, **SMALL)


def test_mixed_releases_and_unknown_inputs_are_refused(tmp_path):
    write(tmp_path, "t1.pt", small_state(4))
    write(tmp_path, "t2.pt", small_state(2))
    with pytest.raises(ValueError, match=r"networks of one kind.*'t1': 4, 't2': 2"):
        GliGAN(tmp_path, **SMALL)
    write(tmp_path, "t1.pt", small_state(3))
    with pytest.raises(ValueError, match=r"input channels 4 \(TC, WT, ET\).* got 3; give their regions"):
        GliGAN(tmp_path, channels=["t1"], **SMALL)
    two = GliGAN(tmp_path, channels=["t1"], regions={"core": ("A", "B"), "all": ("A", "B", "C")}, **SMALL)
    assert two.classes == ("A", "B", "C")
    with pytest.raises(ValueError, match="expected 2 for networks of 3 input channels, got core"):
        GliGAN(tmp_path, channels=["t1"], regions={"core": ("A",)}, **SMALL)


WHOLE = pickle.dumps({"a": [1, 2, 3]}, protocol=2)
DAMAGED = {
    "empty": ("t1.pt", b""),
    "text": ("t1.pt", b"no checkpoint at all"),
    "cut": ("t1.pt", WHOLE[:-4]),
    "no tensors": ("t1.pt", WHOLE),
    "safetensors": ("t1.safetensors", b"no checkpoint at all"),
}


@pytest.mark.parametrize(("name", "content"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: (damaged|expected tensors)"):
        GliGAN(tmp_path, **SMALL)


def test_truncated_infinite_and_executable_checkpoints_are_refused(tmp_path):
    state = small_state()
    path = write(tmp_path, "t1.pt", state)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"t1\.pt: damaged"):
        GliGAN(tmp_path, **SMALL)
    write(tmp_path, "t1.pt", state | {"out.conv.conv.bias": torch.tensor([torch.nan])})
    with pytest.raises(ValueError, match=r"damaged, out\.conv\.conv\.bias holds numbers that are not finite"):
        GliGAN(tmp_path, **SMALL)
    write(tmp_path, "t1.pt", {"state_dict": state, "network": Recorder()})
    with pytest.raises(ValueError, match="a pickle of more than weights, which is never run"):
        GliGAN(tmp_path, **SMALL)


def test_without_monai_the_advice_is_clear(release, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ImportError, match="pip install"):
        GliGAN(release, **SMALL)


@pytest.mark.parametrize("sizes", [(), (32,), (100,), (96, 64)])
def test_crop_sizes_that_cannot_be_are_refused(release, sizes):
    with pytest.raises(ValueError, match="ascending multiples of 32 from 64 on"):
        GliGAN(release, crop_sizes=sizes)


def test_the_network_sees_noise_tissue_and_regions(gligan):
    context, mask, seeds = crops(1, 2)
    bound = recording(gligan)
    bound.generate(context, mask, seeds)
    seen = bound._networks["flair"].seen[0][0]
    lesion = mask[0].sum(0) > 0
    noisy, regions = seen[0], seen[1:]
    ncr, ed, et = mask[0].bool()
    assert torch.equal(regions.bool(), torch.stack([ncr | et, ncr | ed | et, et]))
    assert noisy.min() == -1 and noisy.flatten().sort().values[-2].item() == pytest.approx(1)
    # tissue lies on one line; the background is the darkest of what is not noise
    tissue, host = noisy[~lesion], context[0, 0][~lesion]
    line = torch.corrcoef(torch.stack([tissue, host]).double())[0, 1]
    assert line > 0.99999 and tissue.min() == noisy[0, 0, 0]
    # undone, the scaling leaves standard normal noise in the lesion and [-1, 1] around it
    unit = (noisy - tissue.min()) / (tissue.max() - tissue.min()) * 2 - 1
    assert abs(unit[lesion].mean()) < 0.1 and abs(unit[lesion].std() - 1) < 0.1


@pytest.mark.parametrize("answer", [-1.5, -1.0, -0.3, 0.5, 1.0, 2.0])
def test_output_goes_back_by_the_same_minimum_and_maximum(gligan, answer):
    context, mask, seeds = crops(1, 2)
    out = recording(gligan, answer=answer).generate(context, mask, seeds)
    around = context[:, :, mask[0].sum(0) == 0]
    low, high = around.amin(2), around.amax(2)
    expected = low + (min(max(answer, -1), 1) + 1) / 2 * (high - low)
    assert torch.allclose(out.flatten(2), expected[..., None].expand_as(out.flatten(2)), atol=1e-6)


def test_background_amid_the_tissue_values_is_still_darkest(gligan):
    context, mask, seeds = crops(1, 2)
    context[..., :9], context[..., -7:] = 0.25, -0.5
    bound = recording(gligan)
    bound.generate(context, mask, seeds)
    noisy = bound._networks["t1"].seen[0][0, 0]
    lesion = mask[0].sum(0) > 0
    darkest = noisy[~lesion].min()
    assert (noisy[..., :9] == darkest).all() and (noisy[..., -7:] == darkest).all()
    assert (noisy[..., 9:-7][~lesion[..., 9:-7]] == darkest).float().mean() < 1e-3


def test_a_missing_sequence_stays_finite(gligan):
    context, mask, seeds = crops(1, 2)
    context[:, 0] = 0
    out = recording(gligan, answer=0.7).generate(context, mask, seeds)
    assert (out[:, 0] == 0).all() and out.isfinite().all()


def test_crops_that_do_not_fit_are_refused(gligan):
    context, mask, seeds = crops(1, 2)
    bound = gligan.bind(("flair", "t1"), BRATS18.names)
    for wrong in ((context[:, :1], mask), (context, mask[:, :2]), (context[..., :32], mask[..., :32])):
        with pytest.raises(ValueError, match="expected crops of 2 channels, 3 classes and side 64, got context"):
            bound.generate(*wrong, seeds)


@pytest.mark.slow
def test_results_depend_on_their_own_seed_alone(gligan):
    context, mask, seeds = crops(2, 1)
    context[1] = context[0]
    flair = gligan.bind(("flair",), BRATS18.names)
    state = torch.get_rng_state()
    together = flair.generate(context, mask, seeds)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flair.generate(context[1:], mask[1:], seeds[1:])[0], together[1])
    assert (together[0] - together[1])[:, mask[0].sum(0) > 0].abs().mean() > 0.01


def test_a_channel_is_alike_whichever_others_are_there(gligan):
    context, mask, seeds = crops(1, 2)
    both, alone = recording(gligan, ("flair", "t1")), recording(gligan, ("t1",))
    both.generate(context, mask, seeds)
    alone.generate(context[:, 1:], mask, seeds)
    inputs = both._networks["flair"].seen[0][0, 0], both._networks["t1"].seen[0][0, 0]
    assert torch.equal(inputs[1], alone._networks["t1"].seen[0][0, 0])
    lesion = mask[0].sum(0) > 0
    assert torch.corrcoef(torch.stack([x[lesion] for x in inputs]))[0, 1].abs() < 0.05


def test_channels_and_classes_go_by_name(gligan):
    context, mask, seeds = crops(1, 2)
    forward = recording(gligan)
    forward.generate(context, mask, seeds)
    turned = recording(gligan, ("t1", "flair"), classes=("ET", "ED", "NCR"))
    turned.generate(context.flip(1), mask.flip(1), seeds)
    for channel in ("t1", "flair"):
        assert torch.equal(forward._networks[channel].seen[0], turned._networks[channel].seen[0])
    assert gligan.bind(CHANNELS, ("ET",)).classes == ("ET",)
    with pytest.raises(ValueError, match="knows the classes NCR, ET, ED; the insertion has NCR, ED, ET, RC"):
        gligan.bind(CHANNELS, BRATS24.names)


def test_releases_of_2024_know_their_classes(tmp_path):
    write(tmp_path, "t1.pt", small_state(5))
    assert set(GliGAN(tmp_path, **SMALL).bind(("t1",), BRATS24.names).classes) == set(BRATS24.names)
    write(tmp_path, "t1.pt", small_state(2))
    assert GliGAN(tmp_path, **SMALL).bind(("t1",), single().names).classes == ("tumour",)


def test_crops_are_96_by_default(release):
    assert GliGAN(release, feature_size=FEATURE_SIZE, channels=["t2"]).crop_sizes == (96,)


@pytest.mark.parametrize("channels", [("t1c", "t2f"), ("t2",)])
def test_the_engine_uses_it(gligan, channels):
    image, label = toy_batch(1, channels=len(channels))
    insert = toy_insertion(gligan, toy_bank(channels=channels), channels=channels)
    plan = insert.plan(image, label)
    new_image, new_label = insert.apply(image, label, plan)
    assert done_rows(plan), plan.to_rows()
    changed = (new_label != label)[:, 0]
    assert changed.any() and not (new_image != image).any(1)[~changed].any()
    for c in range(len(channels)):
        inside = new_image[0, c][changed[0]]
        assert inside.isfinite().all() and inside.min() >= image[0, c].min() and inside.max() <= image[0, c].max()
        assert (inside != image[0, c][changed[0]]).float().mean() > 0.9
