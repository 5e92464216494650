"""The check that no arm inserts, or paints as it was taught by, lesions of patients that it is tested on."""

from collections.abc import Mapping, Sequence

from synthaug.config import ConfigError
from synthaug.data.cases import Case
from synthaug.data.folds import patients_among
from synthaug.generators.patients import generator_patients
from synthaug.lesions.registry import resolve_lesions
from synthaug.training.seen import bank_patients
from synthaug.training.segmentation_config import SegmentationConfig
from synthaug.trial.rotation import Rotation


def refuse_tested_donors(
    runs: Mapping[tuple[str, int], tuple[SegmentationConfig, Rotation]], cases: Sequence[Case]
) -> tuple[str, ...]:
    """Check the generators and banks of all arms; a bank that a trainer makes holds training patients alone.

    Args:
        runs: arm and rotation to the run's configuration and patients.
        cases: of the trial.

    Returns:
        Arms whose generator does not say whom it has seen.

    Raises:
        ConfigError: an arm and the tested patients that its generator or its bank has seen, or a bank that cannot be
            read.
    """
    seen: dict[str, set[str] | None] = {}
    unknown: dict[str, None] = {}
    for (arm, _), (config, rotation) in runs.items():
        options = config.insertion
        if options is None:
            continue
        tested = [case for case in cases if case.group in rotation.test]
        if options.generator not in seen:
            seen[options.generator] = generator_patients(options.generator)
        _refuse(arm, f"the generator {options.generator}", seen[options.generator], tested)
        if seen[options.generator] is None:
            unknown[arm] = None
        for bank in (options.bank, options.painted.bank if options.painted else None):
            if bank is not None:
                if str(bank) not in seen:
                    try:
                        seen[str(bank)] = bank_patients(resolve_lesions(bank))
                    except (OSError, ValueError) as error:
                        raise ConfigError(f"arm {arm}: insertion.bank: {error}") from error
                _refuse(arm, f"the bank {bank}", seen[str(bank)], tested)
                if seen[str(bank)] is None:
                    unknown[arm] = None
    return tuple(unknown)


def _refuse(arm: str, what: str, seen: set[str] | None, tested: Sequence[Case]) -> None:
    """Raise where patients of the tested cases are among those seen."""
    if shared := patients_among(tested, seen or ()):
        raise ConfigError(f"arm {arm}: {what} has seen {', '.join(shared)}, tested here; give one that has not")
