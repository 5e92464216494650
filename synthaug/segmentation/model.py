"""A trained segmentation model: weights and configuration, in one folder without pickles.

weights.safetensors   the network's
config.json           channels, classes, regions, network, patch and voxel size, inference, postprocessing
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt, ValidationError
from safetensors.torch import load_file, save
from torch import nn

from synthaug.classes import Classes
from synthaug.config import ConfigError, Section
from synthaug.data.cases import Case, CaseError, StoredCase, load_stored
from synthaug.data.nifti import Volume, nifti_bytes
from synthaug.data.resampling import resample_image, resample_onto
from synthaug.files import replace_file
from synthaug.host import zscore_host
from synthaug.segmentation.inference import InferenceConfig, predict_probabilities
from synthaug.segmentation.networks import AnyNetwork, SegmentationNetwork, named_tensors
from synthaug.segmentation.postprocessing import PostprocessingConfig, to_label
from synthaug.segmentation.targets import Targets


class ModelConfig(Section):
    """Configuration of a trained model: inputs, outputs, network, and the way from volume to label map."""

    channels: tuple[str, ...]
    classes_name: str
    classes: dict[str, PositiveInt]
    regions: dict[str, tuple[str, ...]]
    region_outputs: bool
    network: AnyNetwork
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt]
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None
    inference: InferenceConfig
    postprocessing: PostprocessingConfig

    @property
    def targets(self) -> Targets:
        """Outputs of the network."""
        classes = Classes(self.classes_name, self.classes)
        return Targets(classes, self.regions if self.region_outputs else None)

    def make_network(self) -> SegmentationNetwork:
        """Make the network, with random weights."""
        return SegmentationNetwork(self.network, len(self.channels), len(self.targets), self.patch_size)


@dataclass
class Segmenter:
    """A trained model that segments cases.

    Attributes:
        config: configuration of the model.
        networks: one, or several whose probabilities are averaged, such as those of the folds of a cross-validation.

    Example:
        A run of ``synthaug train segmentation`` leaves such a folder; this one has random weights.

        >>> from tempfile import TemporaryDirectory
        >>> from synthaug.data import phantom_case
        >>> from synthaug.config import read_config
        >>> from synthaug.shipped import find_config
        >>> from synthaug.training.segmentation_config import SegmentationConfig
        >>> config = read_config(find_config("segmentation_tiny"), SegmentationConfig).model_spec
        >>> with TemporaryDirectory() as folder:
        ...     save_model(Path(folder), config, named_tensors(config.make_network()))
        ...     model = Segmenter.load(folder)
        >>> model.segment(phantom_case(0, size=(40, 32, 32))).shape
        (40, 32, 32)
    """

    config: ModelConfig
    networks: list[nn.Module]

    def __post_init__(self):
        self.targets = self.config.targets

    @classmethod
    def load(cls, *folders: str | Path, device: str | torch.device = "cpu") -> "Segmenter":
        """Load the model of a run or a model folder, or an ensemble of several that are alike.

        Raises:
            ConfigError: a folder without a model, damaged files, or models that differ in more than their networks.
        """
        loaded = [load_model(Path(folder)) for folder in folders]
        configs = [config for config, _ in loaded]
        for folder, config in zip(folders, configs, strict=True):
            alike = ("channels", "classes", "regions", "region_outputs", "spacing_mm", "patch_size")
            if differs := [key for key in alike if getattr(config, key) != getattr(configs[0], key)]:
                raise ConfigError(f"{folder}: differs from {folders[0]} in {', '.join(differs)}")
        return cls(configs[0], [network.to(device).eval() for _, network in loaded])

    def prepare(self, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
        """Prepare a case for the networks: z-scored image (C, x, y, z) at the model's voxel size, and its affine."""
        image = zscore_host(volume.image)
        if self.config.spacing_mm is None:
            return image, volume.affine
        return resample_image(image, volume.affine, self.config.spacing_mm)

    def segment(self, volume: Volume, inference: InferenceConfig | None = None) -> np.ndarray:
        """Segment a volume.

        Args:
            volume: read by `load_case` with the model's channels, in its order.
            inference: windows and mirror images, in place of the model's own.

        Returns:
            (X, Y, Z) int16 label map on the volume's own grid.
        """
        prepared, affine = self.prepare(volume)
        image = torch.from_numpy(prepared).to(next(self.networks[0].parameters()).device)
        options = inference or self.config.inference
        found = [predict_probabilities(n, image, self.targets, self.config.patch_size, options) for n in self.networks]
        probabilities = sum(found[1:], found[0]) / len(found)
        if self.config.spacing_mm is not None:
            probabilities = resample_onto(probabilities, affine, volume.affine, volume.image.shape[1:])
        background = torch.from_numpy(volume.image).to(probabilities.device)
        config = self.config
        return to_label(
            probabilities, background, self.targets, config.regions, volume.spacing_mm, config.postprocessing
        )

    def write_prediction(self, case: Case, out: Path, inference: InferenceConfig | None = None) -> Path:
        """Segment a case and write ``<case>.nii.gz`` with the affine and header of its first channel.

        Raises:
            CaseError: a case that cannot be read.
        """
        unlabelled = Case(case.name, case.group, case.images, None)
        stored = load_stored(unlabelled, self.config.channels, require_label=False)
        try:
            label = self.segment(stored.volume, inference)
        except ValueError as error:
            raise CaseError(f"{case.name}: {error}") from error
        return write_label(stored, case.images[self.config.channels[0]], label, out / f"{case.name}.nii.gz")


def write_label(stored: StoredCase, like: Path, label: np.ndarray, path: Path) -> Path:
    """Write a label map on a case's grid, beside its place and renamed; uint8 where its values allow that."""
    kind = np.uint8 if label.max(initial=0) < 256 else np.int16
    return replace_file(path, nifti_bytes(stored.files[like].header, label.astype(kind), scaling=(1.0, 0.0)))


def save_model(folder: Path, config: ModelConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a model folder; each file beside its place and renamed.

    Args:
        folder: made where it is missing.
        config: configuration of the model.
        tensors: weights, of `named_tensors`.
    """
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    replace_file(folder / "weights.safetensors", weights)
    replace_file(folder / "config.json", json.dumps(config.model_dump(mode="json"), indent=1))


def load_model(folder: Path) -> tuple[ModelConfig, SegmentationNetwork]:
    """Load the model in a folder, or in the folder ``model`` of a run.

    Raises:
        ConfigError: there is none, or its files do not fit together.
    """
    folder = folder / "model" if (folder / "model").is_dir() else folder
    try:
        config = ModelConfig.model_validate_json((folder / "config.json").read_text(encoding="utf-8"))
        saved = load_file(folder / "weights.safetensors")
    except FileNotFoundError as error:
        raise ConfigError(f"{folder}: no trained model there ({error})") from error
    except (ValidationError, ValueError, OSError) as error:
        raise ConfigError(f"{folder}: its model cannot be read: {error}") from error
    network = config.make_network()
    if unlike := sorted({*saved} ^ {*named_tensors(network)}):
        raise ConfigError(f"{folder}: weights of another network: {', '.join(unlike[:5])} in only one of them")
    network.load_state_dict(saved, strict=False)
    return config, network.eval()
