"""Settings of the fidelity kit."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from synthaug.config import Section
from synthaug.evaluation.fidelity.classifier import REGIONS, ClassifierOptions, Region

Folds = Annotated[int, Field(ge=2)]


class FidelityConfig(Section):
    """What is measured, and how thoroughly.

    Attributes:
        insertions: lesions that are inserted at most, of all patients by turns.
        seeds: seeds of folds and classifiers.
        seed: of insertions, and the first of the classifiers'.
        folds: folds by patient; fewer where there are fewer patients.
        steps: training steps of a classifier.
        batch: crops per step.
        size: side of the crops in voxels.
        crops: crops per lesion when it is tested.
        regions: what classifiers see, of `REGIONS`; one alone takes a third of the time.
        splits: divisions of the patients for the distances.
        least_voxels: smallest lesion that is compared.
        tries: hosts that are tried for a lesion.
        judged: insertions that the segmenter is shown at most.
        read: lesions of each kind on the reader's page, at most.
        device: where classifiers are trained: cpu, cuda.
        options: of the insertion (`synthaug.InsertionOptions`), such as ``{"style": "like-mask"}``.
    """

    insertions: PositiveInt = 48
    seeds: PositiveInt = 3
    seed: Annotated[int, Field(ge=0)] = 0
    folds: Folds = 4
    steps: PositiveInt = 250
    batch: Annotated[int, Field(ge=2, multiple_of=2)] = 16
    size: Annotated[int, Field(ge=8, multiple_of=8)] = 40
    crops: PositiveInt = 8
    regions: Annotated[tuple[Region, ...], Field(min_length=1)] = REGIONS
    splits: PositiveInt = 20
    least_voxels: PositiveInt = 100
    tries: PositiveInt = 6
    judged: PositiveInt = 24
    read: PositiveInt = 20
    device: str = "cpu"
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def quick(cls, **changes) -> "FidelityConfig":
        """Make the settings of a first look, minutes on two cores."""
        known = {"insertions": 16, "seeds": 2, "folds": 2, "steps": 60, "batch": 8, "size": 32, "judged": 4, "read": 8}
        return cls(**(known | changes))

    def classifier(self, patients: int) -> ClassifierOptions:
        """Return the options of a classifier for so many patients."""
        return ClassifierOptions(
            folds=min(self.folds, patients),
            steps=self.steps,
            batch=self.batch,
            size=self.size,
            crops=self.crops,
            device=self.device,
        )
