"""What one insertion costs, beside the transforms that training loops already run. All figures from one run.

    python benchmarks/insertion.py [--bank bank.safetensors] [--repeats 5] [--sizes 96 128] [--batches 1 2 4]
                                   [--generators brats-gan] [--only-learned]

CPU seconds (all threads together) per call on batches of 4 channels: plan and apply of `TumorInsertion` with one lesion
in every sample (scale 0.3-0.8), kornia's RandomTransplantation3D (which neither places nor resamples),
TorchIO's RandomAffine and RandomElasticDeformation (one sample at a time, as they work). The median over the repeats,
each with other lesions. Without a bank, lesions of a phantom bank are pasted. Then how the cost of plan and apply
grows with the inserted voxels at fixed volume, and with the volume at fixed lesion. And what lesions of a painted bank
cost beside pasting the same masks at the same scales, in the same places.

With `--generators` (names, folders), what one insertion by learned generators costs in a patch of 4 x 128^3, beside
RandomAffine on the patch and the published cost of GliGAN: four forwards of its SwinUNETR (random weights) on 4 x 96^3.
By the cube that they paint, filled by a ball as far as it goes: the most that a crop of this side can cost. And by the
diameter of lesions of the bank, their mean.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from synthaug import BRATS18, LesionBank, LesionShapes, TumorInsertion
from synthaug.data import phantom_case
from synthaug.lesions.painted.recipes import Recipe

CHANNELS = ("flair", "t1", "t1ce", "t2")
CROPS = (32, 48, 64, 96, 128)
DIAMETERS = (10, 20, 30, 40, 50, 60)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    bank = LesionBank.load(args.bank) if args.bank else phantom_bank()
    if args.generators:
        learned(args.generators, bank, args.repeats)
    if args.only_learned:
        return
    print(f"torch {torch.__version__}, {args.threads} threads, {len(bank)} donors, median of {args.repeats} calls\n")
    print(
        f"{'CPU seconds per call':34}" + "".join(f"{f'{b} x 4 x {s}^3':>16}" for s in args.sizes for b in args.batches)
    )
    table = {}
    for size in args.sizes:
        for batch in args.batches:
            for name, seconds in measured(bank, batch, size, args.repeats).items():
                table.setdefault(name, {})[size, batch] = seconds
    for name, row in table.items():
        print(f"{name:34}" + "".join(f"{row[s, b]:16.3f}" for s in args.sizes for b in args.batches))
    print("\nratios")
    for name, base in (("paste", "kornia RandomTransplantation3D"), ("procedural", "TorchIO RandomAffine")):
        ratios = "".join(f"{total(table, name, k) / table[base][k]:16.2f}" for k in keys(args))
        print(f"{f'{name} / {base}':34}"[:34] + ratios)
    scaling(bank, args.repeats)
    painted(bank, args.repeats)


def keys(args) -> list[tuple[int, int]]:
    return [(s, b) for s in args.sizes for b in args.batches]


def total(table: dict, name: str, key: tuple[int, int]) -> float:
    return table[f"{name} both"][key]


def measured(bank: LesionBank, batch: int, size: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds of everything on one batch size and patch size."""
    import kornia
    import torchio as tio

    image, label = patches(batch, size)
    out = {}
    for name, lesions in (("paste", bank), ("procedural", LesionShapes())):
        engine = TumorInsertion(lesions, name, prob=1.0, second=0.0, scale=(0.3, 0.8))
        plan_times, whole_times = [], []
        for _ in range(repeats + 1):
            plan_times.append(timed(lambda engine=engine: engine.plan(image, label))[0])
            whole_times.append(timed(lambda engine=engine: engine(image, label))[0])
        out |= {f"{name} plan": statistics.median(plan_times[1:]), f"{name} both": statistics.median(whole_times[1:])}
    transplant = kornia.augmentation.RandomTransplantation3D(p=1.0, excluded_labels=[0])
    out["kornia RandomTransplantation3D"] = median_of(lambda: transplant(image, label[:, 0]), repeats)
    subjects = [tio.ScalarImage(tensor=i) for i in image]
    for transform in (tio.RandomAffine(), tio.RandomElasticDeformation()):
        # the elastic one takes seconds: fewer repeats tell as much
        count = repeats if isinstance(transform, tio.RandomAffine) else 1
        seconds = median_of(lambda transform=transform: [transform(s) for s in subjects], count)
        out[f"TorchIO {type(transform).__name__}"] = seconds
    return out


def scaling(bank: LesionBank, repeats: int) -> None:
    """Print how the cost follows inserted voxels and volume."""
    print(
        "\npaste, plan and apply, batch 1, by the diameter of the lesion (4 x 128^3) and by the volume (20 mm lesions)"
    )
    for diameter in (10, 20, 30, 40, 50):
        print(f"  diameter {diameter:3d} mm {cost(bank, 128, diameter, repeats):8.3f} s")
    for size in (64, 96, 128, 160):
        print(f"  volume {size:3d}^3    {cost(bank, size, 20, repeats):8.3f} s")


def painted(bank: LesionBank, repeats: int) -> None:
    """Print what a painted bank costs beside paste; who painted it makes no difference to that."""
    image, label = patches(1, 128)
    lesions = bank.painted("procedural", 4 * repeats, scale=(0.3, 0.8))
    seconds = {"paste": [], "painted": []}
    for n, lesion in enumerate(lesions):
        recipe = Recipe.parse(lesion.name)
        engines = {
            "paste": TumorInsertion(bank.subset([recipe.lesion]), prob=1.0, second=0.0, scale=recipe.scale, seed=n),
            "painted": TumorInsertion(lesions.subset([lesion.name]), prob=1.0, second=0.0, seed=n),
        }
        for name, engine in engines.items():
            seconds[name].append(median_of(lambda engine=engine: engine(image, label), 3))
    mean = {name: statistics.mean(values) for name, values in seconds.items()}
    each = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    print(f"\n{len(lesions)} lesions painted ahead beside the same ones pasted, batch 1 of 4 x 128^3, CPU seconds")
    print(f"  paste {mean['paste']:.3f}   painted {mean['painted']:.3f}   ratio {mean['painted'] / mean['paste']:.2f}")
    print(f"  median of the ratios {each:.2f}")


def cost(bank: LesionBank, size: int, diameter: float, repeats: int) -> float:
    image, label = patches(1, size)
    engine = TumorInsertion(bank, "paste", prob=1.0, second=0.0, diameter_mm=diameter)
    return median_of(lambda: engine(image, label), repeats)


def learned(names: Sequence[str], bank: LesionBank, repeats: int) -> None:
    """Print what insertions by learned generators cost, by crop and by lesion, beside an affine and GliGAN."""
    import torchio as tio

    from synthaug.generators.gligan.legacy_swin import legacy_swin_unetr

    image, _ = patches(4, 128)
    label = torch.zeros(4, 1, 128, 128, 128, dtype=torch.int64)
    affine, subject = tio.RandomAffine(), tio.ScalarImage(tensor=image[0])
    base = median_of(lambda: affine(subject), repeats)
    print(f"{'TorchIO RandomAffine, 4 x 128^3':50}{base:10.3f} s")
    swin, crop = legacy_swin_unetr(4), torch.randn(1, 4, 96, 96, 96)
    with torch.no_grad():
        gligan = median_of(lambda: [swin(crop) for _ in CHANNELS], 1)
    print(f"{'GliGAN, four forwards, 4 x 96^3':50}{gligan:10.3f} s {gligan / base:8.2f} of RandomAffine")
    for name in names:
        for size in CROPS:
            engine = painting_crops_of(name, size)
            once = median_of(lambda engine=engine: engine(image[:1], label[:1]), repeats)
            what = f"{Path(name).name}, crop of 4 x {size}^3"
            print(
                f"{what:50}{once:10.3f} s {once / base:8.2f} of RandomAffine"
                f"{gligan / once:8.0f} times faster than GliGAN"
            )
        engine = painting_crops_of(name, 64)
        alone, together = (median_of(lambda n=n, engine=engine: engine(image[:n], label[:n]), repeats) for n in (1, 4))
        print(f"  four samples together, crops of 64^3: {together / 4 / alone:.2f} a sample of one alone")
        for diameter in DIAMETERS:
            engine = TumorInsertion(bank, name, prob=1.0, second=0.0, diameter_mm=diameter, tissue_share=0.5)
            seconds = [timed(lambda engine=engine: engine(image[:1], label[:1]))[0] for _ in range(2 * repeats + 1)]
            mean, report = statistics.mean(seconds[1:]), engine.report()
            what = f"{Path(name).name}, lesions of {diameter} mm ({report.done} of {report.asked} done)"
            print(f"{what:50}{mean:10.3f} s {mean / base:8.2f} of RandomAffine")
    print()


def painting_crops_of(name: str, size: int) -> TumorInsertion:
    """An engine whose lesions, balls of one size, take crops of just this side and are the largest that do.

    Raises:
        ValueError: the generator has no such crops.
    """
    volume = torch.randn(1, 4, 128, 128, 128), torch.zeros(1, 1, 128, 128, 128, dtype=torch.int64)
    for diameter in range(size, 4, -4):
        shapes = LesionShapes(diameter_mm=diameter, irregularity=0.0)
        engine = TumorInsertion(shapes, name, prob=1.0, second=0.0, tissue_share=0.5)
        if engine.plan(*volume).insertions[0].crop_vox == (size,) * 3:
            return engine
    raise ValueError(f"{name} paints no crops of {size}")


def patches(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Brains of noise, background 0, with a lesion of 10 % of the side in each."""
    generator = torch.Generator().manual_seed(0)
    image = 500 + 100 * torch.randn(batch, 4, size, size, size, generator=generator)
    image[..., : size // 8] = 0
    label = torch.zeros(batch, 1, size, size, size, dtype=torch.int64)
    low, high = size // 2, size // 2 + size // 10
    label[:, :, low:high, low:high, low:high] = 4
    return image, label


def phantom_bank() -> LesionBank:
    volumes = [phantom_case(seed, (96, 96, 96)) for seed in range(4)]
    samples = [(f"phantom-{i}", f"p{i}", v.image, v.label, v.spacing_mm) for i, v in enumerate(volumes)]
    return LesionBank.from_arrays(samples, BRATS18, CHANNELS)


def median_of(call: Callable, repeats: int) -> float:
    call()
    return statistics.median(timed(call)[0] for _ in range(repeats))


def timed(call: Callable) -> tuple[float, object]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--generators", nargs="*", default=[], help="learned generators: names or folders")
    parser.add_argument("--only-learned", action="store_true", help="leave out all but these")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
