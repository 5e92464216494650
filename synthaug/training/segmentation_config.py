"""Configuration of trainers/segmentation.py, checked before anything is read.

What each key means is written beside it in configs/segmentation_tiny.yaml, and with the parts' configurations in
synthaug/segmentation/.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from accelerate import Accelerator
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from synthaug import Classes, get_classes
from synthaug.channels import canonical_channels
from synthaug.config import CaseLayout, ConfigError, Section
from synthaug.data import Case, find_cases
from synthaug.data.folds import fold_split, refuse_shared_patients
from synthaug.evaluation import default_regions
from synthaug.insertion.schedule import ScheduledOptions
from synthaug.options import refuse_files
from synthaug.segmentation.augmentation import AugmentationConfig
from synthaug.segmentation.inference import InferenceConfig
from synthaug.segmentation.losses import LossConfig, output_weights
from synthaug.segmentation.model import ModelConfig
from synthaug.segmentation.networks import AnyNetwork, check_patch_size
from synthaug.segmentation.optim import OptimizerConfig
from synthaug.segmentation.postprocessing import PostprocessingConfig
from synthaug.training.cases import cases_folder, open_cases
from synthaug.training.run_config import CasesConfig, RunConfig, Seed, Share, Size


class TumourFreeConfig(Section):
    """Tumour-free hosts beside the labelled cases: cases without a label map, or with one of zeros.

    Attributes:
        folder: of the cases, such as `synthaug hosts mirror` writes; none may be of a validation patient.
        share: of the patches that are of them.
        layout: of the folder.
        patients: which of them; all where not given.
    """

    folder: Path
    share: Share = 0.3
    layout: CaseLayout = "auto"
    patients: tuple[str, ...] | None = None


class PatchDataConfig(CasesConfig):
    """Cases, folds, and the size and share of the patches cut from them.

    Attributes:
        folds: number of folds by patient, in place of `validation`.
        fold: the one that is validated on, from 0.
        fold_seed: of the folds' shuffle.
        regions: names and their classes, outermost first; those usual for the classes where not given.
        spacing_mm: voxel size to resample to; the cases' own where not given.
        dtype: of the volumes in memory.
        cache: folder that keeps the volumes as training reads them.
        patch_size: voxels along each axis.
        lesion_share: of the patches, centred on a lesion voxel.
        class_balanced: draw those by class, each alike often, which oversamples the cases that have rare ones; else by
            case.
        tumour_free: hosts without a tumour beside the cases.
    """

    folds: Annotated[int, Field(ge=2)] | None = None
    fold: NonNegativeInt | None = None
    fold_seed: Seed = 0
    regions: dict[str, tuple[str, ...]] | None = None
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    dtype: Literal["float16", "float32"] = "float32"
    cache: Path | None = None
    patch_size: Size
    lesion_share: Share = 0.5
    class_balanced: bool = False
    tumour_free: TumourFreeConfig | None = None

    @field_validator("channels")
    @classmethod
    def _canonical(cls, names):
        return canonical_channels(names)

    @model_validator(mode="after")
    def _one_validation(self):
        if (self.folds is None) == (not self.validation):
            raise ValueError("expected either validation, the cases or patients, or folds with fold")
        if (self.folds is None) != (self.fold is None):
            raise ValueError("expected folds and fold together")
        return self

    @property
    def vocabulary(self) -> Classes:
        """Classes of the label maps."""
        return get_classes(self.classes)

    @property
    def all_regions(self) -> dict[str, tuple[str, ...]]:
        """Regions as given, those usual for the classes where none are."""
        return default_regions(self.vocabulary) if self.regions is None else self.regions


PAINTED = ("scale", "diameter_mm", "scale_after_swap", "swaps", "swap_draw")
"""Options of an insertion that are used up when lesions are painted ahead."""


class AdaptiveConfig(Section):
    """Steering by validation; see `synthaug.insertion.adaptive.AdaptiveInsertion`.

    Attributes:
        momentum: weight of the past in the averages; 0 looks at the latest validation alone.
        strength: exponent of the needs; 0 changes nothing.
        bound: greatest factor by which a weight differs from 1.
        classes: whether classes are steered; where not given, where there is a `class_mix`.
        sizes: whether lesion sizes are.
        size_region: region whose lesions tell how sizes are found; the first one where not given.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.7
    strength: Annotated[float, Field(ge=0)] = 1.0
    bound: Annotated[float, Field(ge=1)] = 2.0
    classes: bool | None = None
    sizes: bool = True
    size_region: str | None = None


class PaintedConfig(Section):
    """Pool of lesions painted ahead; see `synthaug.PaintedLesions`.

    Attributes:
        count: of painted lesions in the pool.
        refresh: lesions painted anew for each patch.
        budget: as many anew as keep insertion and painting within this share of a step's time.
        spacing_mm: voxel size of the paintings, finer than the patches' perhaps; where not given that of the patches,
            or of the donors in their median, or 1 mm for a sampler's masks.
        bank: painted lesions to begin with.
    """

    count: PositiveInt = 200
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    refresh: PositiveFloat | None = None
    budget: Annotated[float, Field(gt=0, lt=1)] | None = None
    bank: Path | None = None

    @model_validator(mode="after")
    def _one_pace(self):
        if self.refresh is not None and self.budget is not None:
            raise ValueError(f"give refresh or budget, not both; got refresh={self.refresh}, budget={self.budget}")
        return self


class InsertionConfig(ScheduledOptions):
    """Options of `TumorInsertion`, its donors and generator, and their schedule over the training.

    Attributes:
        lesions: masks of a bank, or procedural shapes.
        bank: file of the donors' bank, or of a sampler of masks, which a generator paints; the training cases' own
            lesions where not given.
        generator: name, folder or hub id.
        generator_options: of `synthaug.load_generator`.
        adaptive: steering by validation.
        painted: pool of lesions painted ahead.

    By default the last 40 % of the steps are on real lesions alone: a network that is trained on changed data gains
    from a clean end (He et al., 2019, "Data augmentation revisited").
    """

    lesions: Literal["bank", "shapes"] = "bank"
    bank: Path | None = None
    generator: str = "paste"
    generator_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    adaptive: AdaptiveConfig | None = None
    painted: PaintedConfig | None = None

    @model_validator(mode="after")
    def _fits_itself(self):
        refuse_files(self)
        if self.painted is not None and (self.lesions != "bank" or self.generator == "paste"):
            raise ValueError(
                "painted: expected lesions: bank, whose masks are painted, and a generator that paints, such as "
                f"brats-gan; got lesions: {self.lesions}, generator: {self.generator}"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Collect the arguments of `TumorInsertion`."""
        given = self.engine_options
        if clash := sorted({*given, "generator"} & set(self.generator_options)):
            raise ValueError(f"generator_options: {', '.join(clash)} are the insertion's own")
        if self.painted is None:
            return given | {"generator": self.generator} | self.generator_options
        return {key: value for key, value in given.items() if key not in PAINTED} | {"generator": "paste"}

    def painting(self) -> dict[str, Any]:
        """Collect the arguments of `synthaug.PaintedLesions` but for its banks; they are then not the insertion's."""
        given = self.model_dump(include={*PAINTED, "seed"}, exclude_none=True)
        pool = {} if self.painted is None else self.painted.model_dump(exclude={"bank"}, exclude_none=True)
        return given | pool | {"generator": self.generator} | self.generator_options


class ValidationConfig(Section):
    """Interval and metrics of scoring whole volumes; more metrics take longer.

    Attributes:
        every: steps between validations.
        lesionwise: lesion-wise metrics as in BraTS.
        surface: surface distances.
        components: keep where false regions and true lesions lie (`synthaug.evaluation.components`).
    """

    every: PositiveInt
    lesionwise: bool = True
    surface: bool = False
    components: bool = False


class StoppingConfig(Section):
    """Early stopping on the Dice of a class or region.

    Attributes:
        watch: class or region whose validation Dice is watched.
        patience: validations without a rise before training ends.
        min_delta: least rise that counts.
    """

    watch: str
    patience: PositiveInt = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class SegmentationConfig(RunConfig):
    """Configuration of a training of a segmentation network."""

    data: PatchDataConfig
    network: AnyNetwork
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig | None = None
    optimizer: OptimizerConfig
    insertion: InsertionConfig | None
    validation: ValidationConfig
    early_stopping: StoppingConfig | None = None
    inference: InferenceConfig = InferenceConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()
    examples: NonNegativeInt = 6
    report: bool = True
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 100

    @model_validator(mode="before")
    @classmethod
    def _from_profile(cls, content: Any) -> Any:
        """Options of insertion that are not given are the profile's."""
        if not isinstance(content, Mapping):
            return content
        data, options = content.get("data"), content.get("insertion")
        if not isinstance(options, Mapping) or not isinstance(data, Mapping) or data.get("profile") is None:
            return content
        from synthaug.profile.profile import Profile
        from synthaug.profile.use import beside, filled, folder_of, generator_of

        profile = Profile.load(data["profile"])
        own = beside(profile.insertion, options)
        own["generator"] = generator_of(profile, folder_of(data["profile"]))
        return {**content, "insertion": filled(options, own)}

    @model_validator(mode="after")
    def _fits(self):
        check_patch_size(self.network, self.data.patch_size)
        regions, targets = self.data.all_regions, self.model_spec.targets
        classes = self.data.vocabulary
        for members in regions.values():
            for name in members:
                classes.canonical(name)
        self.postprocessing.check(targets, regions)
        if isinstance(self.loss.class_weights, dict):
            output_weights(self.loss.class_weights, targets)
        known = tuple(dict.fromkeys((*regions, *classes.names)))
        if self.early_stopping is not None and self.early_stopping.watch not in known:
            raise ValueError(
                f"early_stopping.watch: expected one of {', '.join(known)}, got {self.early_stopping.watch}"
            )
        if self.augmentation and self.augmentation.mixup and self.data.batch < 2:
            raise ValueError("augmentation.mixup: expected data.batch of 2 or more, whose samples are mixed")
        if self.insertion is not None:
            self.insertion.schedule(self.optimizer.steps)  # raises what does not fit
        adaptive = self.insertion is not None and self.insertion.adaptive is not None
        if adaptive and not self.validation.lesionwise:
            raise ValueError("insertion.adaptive: expected validation.lesionwise, which it follows")
        return self

    @property
    def model_spec(self) -> ModelConfig:
        """Configuration that a trained model is saved with."""
        data, classes = self.data, self.data.vocabulary
        return ModelConfig(
            channels=data.channels,
            classes_name=classes.name,
            classes=dict(classes.values),
            regions=data.all_regions,
            region_outputs=self.loss.targets == "regions",
            network=self.network,
            patch_size=data.patch_size,
            spacing_mm=data.spacing_mm,
            space=data.space,
            inference=self.inference,
            postprocessing=self.postprocessing,
        )


def open_split(config: PatchDataConfig, out: Path, accelerator: Accelerator) -> tuple[list[Case], list[Case]]:
    """Find training and validation cases, as listed or by fold.

    Raises:
        ConfigError: no cases, a split that does not fit them, or none left for training.
    """
    if config.folds is None or config.fold is None:  # a configuration has both or neither
        return open_cases(config, out, accelerator)
    folder = cases_folder(config, out, accelerator)
    try:
        cases = find_cases(folder, config.layout, config.channels, config.group_pattern)
        known = {name for case in cases for name in (case.name, case.group)}
        if config.train is not None and (unknown := sorted({*config.train} - known)):
            raise ValueError(f"train: no case or group is called {', '.join(unknown)}")
        wanted = [c for c in cases if config.train is None or {c.name, c.group} & {*config.train}]
        labelled = [case for case in wanted if case.label is not None and case.split != "test"]
        return fold_split(labelled, config.folds, config.fold, config.fold_seed)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error


def open_tumour_free(config: PatchDataConfig, validation: list[Case]) -> list[Case]:
    """The tumour-free hosts of a configuration; none where it has no such section.

    Raises:
        ConfigError: no cases, unknown patients, or hosts of validation patients.
    """
    wanted = config.tumour_free
    if wanted is None:
        return []
    try:
        cases = find_cases(wanted.folder, wanted.layout, config.channels, config.group_pattern)
        if wanted.patients is not None:
            known = {name for case in cases for name in (case.name, case.group)}
            if unknown := sorted({*wanted.patients} - known):
                raise ValueError(f"no case or patient is called {', '.join(unknown)}")
            cases = [case for case in cases if {case.name, case.group} & {*wanted.patients}]
        held_out = {case.name: case.group for case in validation}
        refuse_shared_patients(f"{wanted.folder}", {case.group for case in cases}, held_out, "validation")
    except ValueError as error:
        raise ConfigError(f"data.tumour_free: {error}") from error
    return cases
