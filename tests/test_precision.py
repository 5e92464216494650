"""Which precision is chosen, what is said about it, and that a run that goes on keeps to what it was trained in."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import segmentation_runs
import torch
import yaml
from engine import crops, toy_gan
from generator_runs import TinyRuns
from segmentation_runs import ROOT

from synthaug import precision
from synthaug.config import ConfigError
from synthaug.generators.learned.painter import Painter, PatchCritic
from synthaug.precision import EmulatedPrecisionWarning, Precision, has_bf16, resolve_precision
from synthaug.segmentation.networks import DynUNet, SegmentationNetwork
from synthaug.training import run as runs
from synthaug.training.gan_config import GANConfig
from synthaug.training.run import ChangedPrecisionWarning, read_metrics, run_precision

clean_process, folder, run = segmentation_runs.clean_process, segmentation_runs.folder, segmentation_runs.run
SHORT = ("optimizer.steps=2", "validation.every=9", "checkpoint_every=1", "insertion=null", "augmentation=null")


@pytest.fixture
def cpu(monkeypatch):
    """A function that makes the CPU one with these capabilities, whatever it is."""

    def become(*capabilities, onednn=True):
        precision.bf16_support.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True), raising=False)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn, raising=False)

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    yield become
    precision.bf16_support.cache_clear()


# ------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("capabilities", "name", "reason"),
    [
        (("avx2", "avx512_bf16"), "bf16", "avx512_bf16"),
        (("amx_tile", "amx_bf16", "avx512_bf16"), "bf16", "amx_bf16"),
        (("sve", "sve_bf16"), "bf16", "sve_bf16"),
        (("avx2", "avx512_bw", "avx512_vnni"), "fp32", "no bf16 instructions"),
        ((), "fp32", "no bf16 instructions"),
    ],
)
def test_auto_follows_the_instructions(cpu, capabilities, name, reason):
    cpu(*capabilities)
    chosen = resolve_precision("auto", "cpu")
    assert (chosen.name, chosen.asked, chosen.bf16) == (name, "auto", name == "bf16")
    assert reason in chosen.reason and str(chosen).startswith(f"{name} (auto: this CPU has")
    assert has_bf16(torch.device("cpu")) == chosen.bf16


def test_auto_is_fp32_where_onednn_or_torch_cannot_or_the_device_is_unknown(cpu, monkeypatch):
    cpu("avx512_bf16", onednn=False)
    assert "oneDNN" in resolve_precision("auto", "cpu").reason and not has_bf16("cpu")
    cpu("avx512_bf16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert "does not tell" in resolve_precision("auto", "cpu").reason and not has_bf16("cpu")
    assert resolve_precision("auto", "mps").reason == "torch does not tell whether mps has bf16 instructions"
    assert not has_bf16("mps")


@pytest.mark.parametrize(("able", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_asks_cuda_without_emulation(cpu, monkeypatch, able, name):
    cpu()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or able)
    assert resolve_precision("auto", "cuda:0").name == name


@pytest.mark.parametrize("isa", ["AVX2", "avx512_core_vnni", "AVX512_CORE"])
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_instructions_that_the_environment_forbids_are_not_there(cpu, monkeypatch, variable, isa):
    cpu("avx512_bf16")
    monkeypatch.setenv(variable, isa)
    assert resolve_precision("auto", "cpu").reason == f"{variable}={isa} forbids bf16 instructions"
    precision.bf16_support.cache_clear()
    monkeypatch.setenv(variable, "AVX512_CORE_AMX")
    assert has_bf16("cpu")


def test_a_new_process_honours_the_environment():
    """Whatever the CPU: with AVX2 at most there is no bf16; a generator that is asked for it says what that costs."""
    code = (
        "from synthaug.precision import resolve_precision as r; print(r('auto', 'cpu')), print(r('bf16', 'cpu').name)"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    chosen, forced = done.stdout.splitlines()
    assert chosen.startswith("fp32 (auto: ") and forced == "bf16"
    assert "EmulatedPrecisionWarning: precision=bf16 will be emulated" in done.stderr and "40 times" in done.stderr


def test_forced_bf16_warns_only_where_it_is_emulated(cpu):
    cpu("avx2")
    with pytest.warns(EmulatedPrecisionWarning, match=r"no bf16 instructions.*40 times.*Set precision=fp32"):
        forced = resolve_precision("bf16", "cpu")
    assert forced.bf16 and forced.reason == "as asked; this CPU has no bf16 instructions"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision("fp32", "cpu").name == resolve_precision("auto", "cpu").name == "fp32"
        cpu("avx512_bf16")
        assert resolve_precision("bf16", "cpu").bf16 and not resolve_precision("fp32", "cpu").bf16
    with pytest.raises(ValueError, match="expected one of auto, fp32, bf16, got 'fp16'"):
        resolve_precision("fp16", "cpu")


def test_generators_paint_in_what_is_chosen(cpu):
    context, mask = crops(1, 16)
    paint = lambda asked: toy_gan(precision=asked).generate(context, mask, [4])  # noqa: E731
    cpu("avx512_bf16")
    exact, able = paint("fp32"), paint("auto")
    cpu("avx2")
    assert torch.equal(paint("auto"), exact) and not torch.equal(able, exact)
    with pytest.warns(EmulatedPrecisionWarning):
        assert torch.equal(paint("bf16"), able)


# ------------------------------------------------------------------------------------------------- trainers


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*_*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_leaves_the_choice_to_the_machine(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8")).get("precision", "auto") == "auto"


@pytest.mark.parametrize("capability", ["avx512_bf16", "avx2"])
def test_the_segmentation_trainer_says_what_it_computes_in(run, cpu, capsys, tmp_path, capability):
    cpu(capability)
    rows = run(*SHORT, "precision=auto", "report=true")
    chosen = resolve_precision("auto", "cpu")
    assert f"computing in {chosen}" in capsys.readouterr().out.splitlines()[0]
    assert rows[0]["precision"] == {"name": chosen.name, "asked": "auto", "reason": chosen.reason}
    assert f"From step 0 on computed in {chosen}" in (tmp_path / "run" / "report.html").read_text()
    state = json.loads((tmp_path / "run/checkpoints/step_00000002/rank_0.json").read_text())
    assert state["precision"] == chosen.name


# the GAN trainer, as small as it can be: one crop of 32^3 a step, below which bf16 does not repeat bit for bit
PAINTER = ("painter.widths=[8,8,8,8]", "painter.head=9", "crops.sizes={32: 1}", "data.batch=1")
RUNS = TinyRuns("gan", GANConfig, ("precision=auto", "checkpoint_every=1", "log_every=1", *PAINTER))


def test_the_generator_trainers_say_what_they_compute_in(cpu, capsys, tmp_path):
    cpu("avx2")
    RUNS.run(tmp_path, "optimizer.steps=1")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("1 steps on crops of 3 training cases") and "computing in fp32 (auto: this CPU" in first
    rows = read_metrics(tmp_path)
    assert rows[0]["precision"] == {"name": "fp32", "asked": "auto", "reason": "this CPU has no bf16 instructions"}
    assert [row["step"] for row in rows if "precision" in row] == [0]


def weights(out):
    return (out / "generator" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "here"), [("avx512_bf16", "avx2"), ("avx2", "avx512_bf16")])
def test_a_run_goes_on_in_what_it_was_trained_in(cpu, capsys, tmp_path, before, here):
    """On a machine that would choose otherwise its weights become those of a run that never moved, and it says so."""
    cpu(before)
    RUNS.run(tmp_path / "stayed", "optimizer.steps=2", "optimizer.decay_from=1")
    name = read_metrics(tmp_path / "stayed")[0]["precision"]["name"]
    RUNS.run(tmp_path / "moved", "optimizer.steps=1", "optimizer.decay_from=1")
    cpu(here)
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        RUNS.run(tmp_path / "moved", "optimizer.steps=2", "optimizer.decay_from=1")
    assert weights(tmp_path / "moved") == weights(tmp_path / "stayed")
    assert sum(w.category is EmulatedPrecisionWarning for w in caught) == (name == "bf16")
    assert f"computing in {name} (auto: as the run was until step 1;" in capsys.readouterr().out.splitlines()[0]
    rows = read_metrics(tmp_path / "moved")
    told = [(row["step"], row["precision"]["name"]) for row in rows if "precision" in row]
    assert told == [(0, name), (1, name)] and "begun here it would be" in rows[2]["precision"]["reason"]


def test_a_precision_that_is_asked_for_changes_a_run_with_a_warning(cpu, tmp_path):
    cpu("avx512_bf16")
    RUNS.run(tmp_path, "optimizer.steps=1")
    with pytest.warns(ChangedPrecisionWarning, match="precision=fp32: as asked; the run was in bf16 until step 1"):
        RUNS.run(tmp_path, "optimizer.steps=2", "precision=fp32")
    RUNS.run(tmp_path, "optimizer.steps=3")
    names = [row["precision"]["name"] for row in read_metrics(tmp_path) if "precision" in row]
    assert names == ["bf16", "fp32", "fp32"], "and is kept from then on"


def test_checkpoints_of_former_versions_go_on_in_what_their_configuration_says(cpu, tmp_path):
    """They did not say what they were trained in; config.yaml said fp32 or bf16, never auto."""
    cpu("avx512_bf16")
    RUNS.run(tmp_path, "optimizer.steps=1", "precision=fp32")
    file = tmp_path / "checkpoints" / "step_00000001" / "rank_0.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in state.items() if key != "precision"}))
    assert run_precision(tmp_path, "auto").name == "fp32"
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("precision: fp32", "precision: auto"))
    with pytest.raises(ConfigError, match=r"step_00000001 does not say.*give precision=bf16 or precision=fp32"):
        RUNS.run(tmp_path, "optimizer.steps=2")
    RUNS.run(tmp_path, "optimizer.steps=2", "precision=fp32")
    assert json.loads((tmp_path / "checkpoints/step_00000002/rank_0.json").read_text())["precision"] == "fp32"


def test_processes_that_differ_compute_in_what_all_can(cpu, monkeypatch, tmp_path):
    cpu("avx512_bf16")
    mine, other = resolve_precision("auto", "cpu"), Precision("fp32", "auto", "the other CPU has none")
    assert run_precision(tmp_path, "auto") == mine
    monkeypatch.setattr(runs, "gather_object", lambda found: [*found, other])
    assert run_precision(tmp_path, "auto") == other


# ------------------------------------------------------------------------------------------------ gradients in bf16


def painted(painter):
    """Paint crops of 16 voxels, which are two and one voxel wide in the depth of the network."""
    drawn = torch.Generator().manual_seed(1)
    context, mask = torch.randn(2, 2, 16, 16, 16, generator=drawn), torch.zeros(2, 1, 16, 16, 16)
    mask[:, :, 4:12, 4:12, 4:12] = 1
    noise = [torch.randn(2, *shape, generator=drawn) for shape in painter.noise_shapes((16, 16, 16))]
    return painter(context * (1 - mask), mask, torch.zeros(2, 1, 2, 3), torch.ones(2, 2), noise)


def judged(critic):
    image = torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    return critic(image, (image[:, :1] > 0).float(), torch.ones(2, 2))[0]


def segmented(network):
    return network(torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1)))


UNET = DynUNet(filters=(8, 16, 24, 32), strides=(1, 2, 2, 2))


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: Painter(2, 1, widths=(8, 16, 24, 32), head=8), painted),
        (lambda: PatchCritic(2, 1, widths=(8, 16, 24)), judged),
        (lambda: SegmentationNetwork(UNET, 2, 3, (16, 16, 16)), segmented),
    ],
    ids=["painter", "critic", "segmenter"],
)
def test_bf16_gradients_of_features_two_voxels_deep_are_those_of_fp32(make, use):
    torch.manual_seed(0)
    network = make()
    found = []
    for bf16 in (False, True):
        network.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answers = use(network)
        drawn = torch.Generator().manual_seed(3)
        answers = answers if isinstance(answers, list) else [answers]
        torch.stack([(a * torch.randn(a.shape, generator=drawn)).float().sum() for a in answers]).sum().backward()
        found.append([None if p.grad is None else p.grad.clone() for p in network.parameters()])
    # those of layers whose input is two voxels deep; what bf16 rounds on the way to them is no fault
    for (name, weight), exact, rounded in zip(network.named_parameters(), *found, strict=True):
        if weight.ndim == 5 and weight.shape[2] == 3 and exact is not None and exact.abs().max() > 1e-3:
            assert (rounded - exact).norm() < 0.5 * exact.norm(), name
