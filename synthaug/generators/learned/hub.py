"""Saving and loading of generators: ``config.json`` and ``model.safetensors``, never a pickle.

A name is looked for among the weights shipped with the package, then as a folder, then on the Hugging Face hub.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn

from synthaug.files import replace_file
from synthaug.generators.learned.denoiser import Denoiser
from synthaug.generators.learned.diffusion import DiffusionGenerator
from synthaug.generators.learned.gan import GANGenerator
from synthaug.generators.learned.painter import Painter
from synthaug.generators.learned.style import StylePrior
from synthaug.generators.learned.styled import StyledGenerator
from synthaug.host.space import Space

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHIPPED = Path(__file__).parents[2] / "weights"
PUBLISHED = ("brats-diffusion", "brats-gan")
"""Names of weights that are made for this package, whether or not they are part of an installation."""


@dataclass(frozen=True)
class _Kind:
    """One kind of generator in files.

    Attributes:
        architecture: its name in the configuration.
        generator: its class.
        network: the class of its network.
        part: what the network is called in both files.
        shape: arguments of the network, and the attributes that hold them.
        later: those of them that files from before they existed lack.
        sampling: further arguments of the generator that are stored, attributes of its painter.
        transient: arguments of the generator that are not.
    """

    architecture: str
    generator: type[StyledGenerator]
    network: type[nn.Module]
    part: str
    shape: Mapping[str, str]
    later: tuple[str, ...] = ()
    sampling: tuple[str, ...] = ()
    transient: tuple[str, ...] = ("batched", "precision")

    def network_of(self, generator: StyledGenerator) -> nn.Module:
        """Return the module whose weights are stored."""
        return generator.painter if self.part == "painter" else getattr(generator.painter, self.part)

    def made(self, *parts: Any, **options: Any) -> StyledGenerator:
        """Make a generator of this kind, of a network, a prior, channels, classes and the kind's own options."""
        make: Callable[..., StyledGenerator] = self.generator
        return make(*parts, **options)

    def options(self) -> tuple[str, ...]:
        """List the options that a user may set when loading."""
        fixed = ("refined",)
        return ("truncation", "crop_sizes", *self.transient, *(s for s in self.sampling if s not in fixed))


PAINTER_SHAPE = {"widths": "widths", "head": "head_width", "hidden": "hidden"}

KINDS = (
    _Kind("synthaug-painter-1", GANGenerator, Painter, "painter", PAINTER_SHAPE, ("hidden",)),
    _Kind(
        "synthaug-flow-2",
        DiffusionGenerator,
        Denoiser,
        "denoiser",
        PAINTER_SHAPE | {"embedding": "embedding"},
        later=("hidden",),
        sampling=("steps", "scheduler", "guidance", "strength", "refined"),
    ),
)


def shipped_generators() -> tuple[str, ...]:
    """List the names of the generators whose weights come with the package."""
    return tuple(sorted(p.parent.name for p in SHIPPED.glob(f"*/{CONFIG}")))


def save_generator(generator: StyledGenerator, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a generator as ``config.json`` and ``model.safetensors``.

    Args:
        generator: the generator to write, not bound to a subset of its channels.
        folder: made where it is not there.
        dtype: dtype of the stored weights; the style prior stays in float32.

    Raises:
        TypeError: a kind of generator that is not stored in files.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> generator = load_generator("brats-gan")
        >>> with TemporaryDirectory() as folder:
        ...     save_generator(generator, folder)
        ...     load_generator(folder).classes
        ('NCR', 'ED', 'ET')
    """
    kind = _kind_of(generator)
    network = kind.network_of(generator)
    state = {f"{kind.part}.{k}": v.to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    state |= {f"prior.{k}": v.float().contiguous().cpu() for k, v in generator.prior.state_dict().items()}
    config = {
        "architecture": kind.architecture,
        "channels": list(generator.channels),
        "classes": list(generator.classes),
        "crop_sizes": list(generator.crop_sizes),
        "truncation": generator.truncation,
        kind.part: {name: _plain(getattr(network, attribute)) for name, attribute in kind.shape.items()},
        **{name: _plain(getattr(generator.painter, name)) for name in kind.sampling},
    }
    if generator.space is not None and generator.space != Space():
        config["space"] = generator.space.model_dump(mode="json")
    # not safetensors' save_file, which makes files that only their owner may read
    replace_file(Path(folder) / WEIGHTS, serialized(state))
    replace_file(Path(folder) / CONFIG, json.dumps(config, indent=2) + "\n")


def load_generator(
    name: str | Path,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    revision: str | None = None,
    **options: Any,
) -> StyledGenerator:
    """Load a generator by name, folder or hub id.

    Args:
        name: name of shipped weights (``"brats-gan"``, ``"brats-diffusion"``), a folder, or the id of a Hugging Face
            repository (``"owner/name"``; needs ``huggingface_hub``).
        channels: canonical names that it must know, where given.
        classes: names that it must know, where given.
        revision: branch, tag or commit of the Hugging Face repository.
        **options: in place of what was saved: ``truncation``, ``crop_sizes``, ``batched``, ``precision``; of a
            diffusion generator also ``steps``, ``scheduler``, ``guidance``, ``strength``.

    Returns:
        A `GANGenerator` or `DiffusionGenerator`, on the CPU.

    Raises:
        FileNotFoundError: the name is none of the three, or a file is missing; what is there is named.
        ValueError: damaged files, another architecture, channels or classes; both sides are named. An option's value
            that the generator refuses.
        TypeError: an option that this kind of generator does not have; those it has are named.
        ImportError: a hub id without ``huggingface_hub``.

    Example:
        >>> generator = load_generator("brats-gan", channels=("t1ce", "flair"), truncation=0.5)
        >>> generator.channels, generator.classes
        (('flair', 't1', 't1ce', 't2'), ('NCR', 'ED', 'ET'))
        >>> bound = generator.bind(("t1ce", "flair"), ("NCR", "ED", "ET"))
        >>> context, mask = torch.zeros(1, 2, 32, 32, 32), torch.zeros(1, 3, 32, 32, 32)
        >>> mask[:, 1, 12:20, 12:20, 12:20] = 1
        >>> bound.generate(context, mask, seeds=[7]).shape
        torch.Size([1, 2, 32, 32, 32])
    """
    folder = _locate(str(name), revision)
    kind, config = _read_config(folder / CONFIG)
    state = _read_weights(folder / WEIGHTS)
    if unknown := options.keys() - kind.options():
        known = ", ".join(kind.options())
        raise TypeError(
            f"unexpected {', '.join(sorted(unknown))}: {folder.name}, a {kind.generator.__name__}, takes {known}"
        )
    found_channels, found_classes = tuple(config["channels"]), tuple(config["classes"])
    for what, wanted, found in (("channels", channels, found_channels), ("classes", classes, found_classes)):
        if absent := [n for n in wanted or () if n not in found]:
            raise ValueError(f"{folder}: made for the {what} {', '.join(found)}; asked for {', '.join(absent)} too")
    with torch.random.fork_rng(devices=[]):
        network = kind.network(len(found_channels), len(found_classes), **config[kind.part])
    prior = StylePrior(len(found_classes), len(found_channels))
    _fill(network, f"{kind.part}.", state, folder / WEIGHTS)
    _fill(prior, "prior.", state, folder / WEIGHTS)
    saved = {name: config[name] for name in ("truncation", "crop_sizes", *kind.sampling)}
    generator = kind.made(network, prior, found_channels, found_classes, **(saved | options))
    # files from before there were others are of skull-stripped images
    generator.space = Space.model_validate(config.get("space", {}))
    return generator


def stored_network(generator: StyledGenerator) -> nn.Module:
    """Return the network of a generator, whose weights `save_generator` writes.

    Raises:
        TypeError: a kind of generator that is not stored in files.
    """
    return _kind_of(generator).network_of(generator)


def with_shape(generator: StyledGenerator, **shape: Any) -> StyledGenerator:
    """Make a generator whose network has another shape, with weights yet to be given; all else as in this one.

    Args:
        generator: not bound to a subset of its channels.
        **shape: arguments of its network, such as ``hidden``.

    Raises:
        TypeError: a kind of generator that is not stored in files.
        ValueError: a shape that the network refuses.
    """
    kind = _kind_of(generator)
    old = kind.network_of(generator)
    same = {name: getattr(old, attribute) for name, attribute in kind.shape.items()}
    with torch.random.fork_rng(devices=[]):
        network = kind.network(len(generator.channels), len(generator.classes), **(same | shape))
    options: dict[str, Any] = {"truncation": generator.truncation, "crop_sizes": generator.crop_sizes}
    options |= {name: getattr(generator.painter, name) for name in kind.sampling}
    options |= {name: getattr(generator, name) for name in kind.transient}
    made = kind.made(network, generator.prior, generator.channels, generator.classes, **options)
    made.space = generator.space
    return made


def _kind_of(generator: StyledGenerator) -> _Kind:
    kind = next((k for k in KINDS if type(generator) is k.generator), None)
    if kind is None:
        kinds = ", ".join(k.generator.__name__ for k in KINDS)
        raise TypeError(f"generator: expected one of {kinds}, got {type(generator).__name__}")
    return kind


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _locate(name: str, revision: str | None) -> Path:
    if name in shipped_generators():
        return SHIPPED / name
    if Path(name).is_dir():
        return generator_folder(Path(name))
    if name in PUBLISHED:
        raise FileNotFoundError(f"no weights of {name!r} in this installation ({SHIPPED / name} is not there)")
    if Path(name).parent != Path() and Path(name).parent.is_dir():
        near = ", ".join(sorted(p.name for p in Path(name).parent.iterdir() if p.is_dir())[:5]) or "none"
        raise FileNotFoundError(f"no generator {name!r}: no such folder; those in {Path(name).parent} are {near}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        shipped = ", ".join(shipped_generators()) or "none"
        raise FileNotFoundError(f"no generator {name!r}: shipped are {shipped}; it is no folder and no hub id")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(f"{name!r} looks like a hub id, which needs: pip install huggingface_hub") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FileNotFoundError(
            f"no generator {name!r}: no such folder, and as a hub id it cannot be had: {reason}"
        ) from error


def generator_folder(folder: Path) -> Path:
    """The folder of a generator's files: this one, or the one that a training run keeps them in."""
    inside = folder / "generator"
    return inside if not (folder / CONFIG).is_file() and (inside / CONFIG).is_file() else folder


def _read_config(path: Path) -> tuple[_Kind, Mapping[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; a generator's folder has {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error})") from error
    found = config.get("architecture") if isinstance(config, dict) else type(config).__name__
    kind = next((k for k in KINDS if k.architecture == found), None)
    if kind is None:
        known = " or ".join(repr(k.architecture) for k in KINDS)
        raise ValueError(f"{path}: expected the architecture {known}, got {found!r}")
    expected = {"channels", "classes", "crop_sizes", "truncation", kind.part, *kind.sampling}
    if missing := expected - set(config):
        raise ValueError(f"{path}: damaged, {', '.join(sorted(missing))} missing")
    part = config[kind.part]
    if not isinstance(part, dict) or not kind.shape.keys() - {*kind.later} <= part.keys() <= kind.shape.keys():
        raise ValueError(f"{path}: damaged, expected {', '.join(kind.shape)} of the {kind.part}")
    return kind, config


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; a generator's folder has {CONFIG} and {WEIGHTS}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged, no safetensors file ({error})") from error


def _fill(module: nn.Module, prefix: str, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of one part, all of them and no others, and check that they are finite."""
    part = {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}
    expected = module.state_dict()
    if part.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - part.keys()), sorted(part.keys() - expected.keys())
        raise ValueError(f"{path}: weights of another architecture; missing {missing[:3]}, unexpected {extra[:3]}")
    for key, value in part.items():
        if value.shape != expected[key].shape:
            shapes = f"expected the shape {tuple(expected[key].shape)}, got {tuple(value.shape)}"
            raise ValueError(f"{path}: weights of another architecture; {prefix}{key}: {shapes}")
        if not value.isfinite().all():
            raise ValueError(f"{path}: damaged, {prefix}{key} holds numbers that are not finite")
    module.load_state_dict(part)
