"""`synthaug fit`: a data set is looked at, case by case, and what follows is written beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from synthaug.config import ConfigError
from synthaug.data.cases import Case
from synthaug.data.dataset_json import label_names, region_names
from synthaug.files import replace_file
from synthaug.host.rule import HostRule
from synthaug.host.space import Space
from synthaug.host.units import Units
from synthaug.lesions.bank import LesionBank
from synthaug.lesions.places import PlaceFrequency
from synthaug.profile import decisions, inserted
from synthaug.profile.channels import modality, stripped
from synthaug.profile.configs import configurations
from synthaug.profile.kept import with_recommendation
from synthaug.profile.labels import Roles, given, named, unnamed, vocabulary
from synthaug.profile.measure import Look, alike_on_both_sides, frequency, measure
from synthaug.profile.plan import plan
from synthaug.profile.profile import BANK, FILE, Channel, Data, Labels, Profile, Sizes, Where
from synthaug.profile.survey import Survey, border_shares, look, open_survey, renamed

PAGE = "profile.html"
PASSES = 3


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes:
        profile: the profile.
        bank: lesions of all cases that were measured.
        look: what was measured.
        cases: that were.
        out: the folder that holds the files.
        kept: in words, what stayed of a profile that was there, or did not; empty where there was nothing to keep.
    """

    profile: Profile
    bank: LesionBank
    look: Look
    cases: list[Case]
    out: Path
    kept: str = ""


@dataclass(frozen=True)
class Given:
    """What a user says of the data; everything that is None is found out.

    Attributes:
        classes: lesion class name to label value.
        organs: labels that may hold a lesion, name to value.
        modality: channel name to ct, mr, pet or other.
        channels: names in order.
        layout: of the folder.
        group_pattern: that finds the patient in a case's name.
        masks: where lesions may lie: a file beside each case, or a folder of masks.
        memory_gb: of the device that trains the segmenter.
    """

    classes: Mapping[str, int] | None = None
    organs: Mapping[str, int] | None = None
    modality: Mapping[str, str] | None = None
    channels: Sequence[str] | None = None
    layout: str = "auto"
    group_pattern: str | None = None
    masks: str | None = None
    memory_gb: float = 8.0


def fit(folder: str | Path, out: str | Path | None = None, told: Given | None = None, progress: bool = False) -> Fitted:
    """Look at a data set and write its profile, its lesion bank, configurations and a page about them.

    Where a profile is there already, its recommended generator stays if data, host rule and units are what they were.

    Args:
        folder: of the data set, in any layout of `synthaug.data.find_cases`, or of its images (imagesTr).
        out: folder for the files; that of the data set where not given.
        told: what the user says.
        progress: show a progress bar.

    Raises:
        ConfigError: no usable case, or something about the data that nobody can know; the message says what to give.
    """
    told = told or Given()
    survey = open_survey(folder, told.layout, told.channels, told.group_pattern)
    target = survey.folder if out is None else Path(out)
    with tqdm(total=PASSES * len(survey.cases), desc="fit", unit="look", disable=not progress) as bar:
        look(survey, _told(survey.cases, bar))
        roles = roles_of(survey, told)
        survey, kinds, why = modalities_of(survey, told)
        before = host_before(survey, kinds, roles, told)
        classes = vocabulary(roles.lesions)
        try:
            found = measure(_told(survey.cases, bar), survey.channels, classes, Space(rule=before.value))
        except ValueError as error:
            raise ConfigError(f"{folder}: {error}") from error
        profile = profile_of(survey, roles, kinds, before, found, told, why)
        usable = [case for case in survey.cases if case.name in found.measured.cases]
        bank = LesionBank.from_cases(_told(usable, bar), classes, survey.channels, space=profile.space)
    if profile.where.mirrored and bank.places is not None:
        profile = profile.model_copy(update={"where": Where.of(bank.places, True)})
    profile, kept = with_recommendation(profile, bank, target)
    fitted = Fitted(profile, bank, found, usable, target, kept)
    write(fitted)
    return fitted


def _told(cases: Iterable[Case], bar: tqdm) -> Iterator[Case]:
    for case in cases:
        yield case
        bar.update()


def roles_of(survey: Survey, told: Given) -> Roles:
    """Find out which labels are what.

    Raises:
        ConfigError: nobody can know.
    """
    evidence, listed = border_shares(survey), survey.listed or {}
    names = label_names(listed) if listed else {}
    if "ignore" in listed:
        names["ignore"] = int(listed["ignore"])
    if told.classes is not None:
        return given(evidence, told.classes, told.organs or {}, names)
    if names:
        return named(evidence, names, len(survey.cases))
    return unnamed(evidence, len(survey.cases), survey.channels, [case.name for case in survey.cases])


def modalities_of(survey: Survey, told: Given) -> tuple[Survey, dict[str, str], dict[str, str]]:
    """Give the survey's channels names that say something; returns it, the modality of each, and reasons.

    Raises:
        ConfigError: nobody can know.
    """
    found, why = {}, {}
    said = {name.lower(): kind for name, kind in (told.modality or {}).items()}
    for name in survey.channels:
        found[name], reason = modality(name, survey.images[name], said.get(name) or said.get("*"))
        why[f"channels.{name}.modality"] = reason
    if list(found) == ["channel0"] and found["channel0"] != "other":
        kind = found["channel0"]
        return renamed(survey, (kind,)), {kind: kind}, {f"channels.{kind}.modality": why["channels.channel0.modality"]}
    return survey, found, why


def host_before(survey: Survey, kinds: Mapping[str, str], roles: Roles, told: Given) -> decisions.Decided:
    """Choose the host rule without its range."""
    if told.masks is not None:
        rule = HostRule(stripped=False, masks=told.masks, labels=roles.organs, avoided=roles.avoided)
        return decisions.Decided(rule, "masks as given")
    others = [survey.images[name] for name in survey.channels if kinds[name] != "ct"]
    return decisions.host_before(kinds, roles, *stripped(others))


def profile_of(
    survey: Survey, roles: Roles, kinds: Mapping[str, str], before: decisions.Decided, found: Look, told: Given,
    why: dict[str, str],
) -> Profile:  # fmt: skip
    """Derive everything that follows from the measurements."""
    computed = [name for name in survey.channels if kinds[name] == "ct"]
    ranges = {name: bounds for name in computed if (bounds := decisions.host_range(found, name)) is not None}
    rule = before.value.model_copy(update={"range": {name: bounds.value for name, bounds in ranges.items()}})
    host = decisions.within_range(found, rule)
    units = decisions.fixed_units(found, computed, host)
    mirrored = alike_on_both_sides(found.places)
    classes = vocabulary(roles.lesions)
    options, reasons = decisions.insertion(found, classes, survey.channels, bool(units.value.fixed))
    if rule.stripped and "flair" in survey.channels:
        options["avoid_fluid"] = True
        reasons["insertion.avoid_fluid"] = "skull-stripped MR with FLAIR shows ventricles, where no lesion grows"
    names = {case.name for case in survey.cases} & set(found.measured.cases)
    patients = {case.group for case in survey.cases if case.name in names}
    channels = [Channel(name=name, called=name, modality=kinds[name]) for name in survey.channels]
    spacings = {case.name: case.spacing_mm for case in found.cases}
    extents = [[n * s for n, s in zip(p.extent_vox, spacings[p.case], strict=True)] for p in found.places]
    network = plan(
        [c.size for c in found.cases], [c.spacing_mm for c in found.cases], extents, len(classes), told.memory_gb
    )
    reasons |= why | {
        "labels": roles.why,
        "host": before.why,
        **{f"host.range.{name}": bounds.why for name, bounds in ranges.items()},
        "units": units.why,
        "where.mirrored": "lesions lie as often on one side as on the other"
        if mirrored
        else "one side has more lesions",
        "where.floor": "so that places where no lesion was seen stay possible",
        "plan": f"nnU-Net's rules for {told.memory_gb:g} GB",
        "plan.crops": "the least that hold a lesion and 6 voxels around it",
        "data.patients": _patients_why(len(names), len(patients), told),
    }
    return Profile(
        data=Data(
            folder=str(survey.folder.resolve()),
            layout=survey.layout,
            cases=len(names),
            patients=len(patients),
            group_pattern=told.group_pattern,
            left_out=(*survey.left_out, *found.left_out),
            unlabelled=tuple(survey.unlabelled),
        ),
        channels=tuple(decisions.percentiles(channel, found, host) for channel in channels),
        labels=Labels(
            lesions=roles.lesions, organs=roles.organs, avoided=roles.avoided, regions=_regions(survey, roles)
        ),
        host=rule.model_copy(update={"labels": {}, "avoided": {}}),
        units=units.value if isinstance(units.value, Units) else Units(),
        where=_where(found, mirrored),
        sizes=_sizes(found),
        insertion=options,
        plan=network,
        why=reasons,
    )


def _patients_why(cases: int, patients: int, told: Given) -> str:
    if told.group_pattern is not None:
        return "by the pattern that was given"
    if cases == patients:
        return "each case counts as a patient; where some have several, give --group-pattern"
    return "by the cases' names"


def _regions(survey: Survey, roles: Roles) -> dict[str, tuple[str, ...]] | None:
    regions = region_names(survey.listed) if survey.listed else None
    if regions is None:
        return None
    kept = {name: members for name, members in regions.items() if set(members) <= set(roles.lesions)}
    return kept or None


def _where(found: Look, mirrored: bool) -> Where:
    shares = frequency(found.places, mirrored)
    return Where.of(PlaceFrequency(shares / shares.max()), mirrored)


def _sizes(found: Look) -> Sizes:
    diameters = [lesion.diameter_mm for lesion in found.places]
    measured = found.measured
    per_case = np.bincount([sum(p.case == case.name for p in found.places) for case in found.cases])
    ml = {
        name: round(float(np.median(column[column > 0])), 3) if (column > 0).any() else 0.0
        for name, column in zip(measured.classes.names, measured.ml.T, strict=True)
    }
    return Sizes(
        lesions=len(diameters),
        diameter_mm=tuple(np.percentile(diameters, (5, 25, 50, 75, 95)).round(2).tolist()),
        ml=ml,
        per_case=tuple(per_case.tolist()),
    )


def write(fitted: Fitted) -> None:
    """Write the files; a profile that is there and was changed by hand is kept beside the new one."""
    from synthaug.profile.page import page

    target, old = fitted.out / FILE, fitted.out / FILE.replace(".json", ".old.json")
    text = fitted.profile.json()
    if target.is_file() and target.read_text(encoding="utf-8") != text:
        replace_file(old, target.read_bytes())
    fitted.bank.save(fitted.out / BANK)
    for name, content in configurations(
        fitted.profile, fitted.cases, fitted.bank, (fitted.out / FILE).resolve()
    ).items():
        replace_file(fitted.out / name, content)
    replace_file(fitted.out / PAGE, page(fitted))
    replace_file(target, text)


def rewritten(fitted: Fitted, profile: Profile) -> Fitted:
    """Write the files again with a profile that says more."""
    changed = replace(fitted, profile=profile)
    write(changed)
    return changed


def written(fitted: Fitted) -> dict[str, Any]:
    """Say in a few lines for the terminal what a fit found: word to what follows it."""
    profile = fitted.profile
    told = inserted.words(profile, fitted.cases)
    return ({} if told is None else {"few": told}) | {
        "cases": f"{profile.data.cases} of {profile.data.patients} patients"
        + (f", {len(profile.data.left_out)} left out" if profile.data.left_out else "")
        + (f", {len(profile.data.unlabelled)} without a label" if profile.data.unlabelled else ""),
        "channels": ", ".join(f"{c.name} ({c.modality})" for c in profile.channels),
        "lesions": ", ".join(f"{n}={v}" for n, v in profile.labels.lesions.items())
        + f"; {len(fitted.bank)} in the bank",
        "host": profile.space.rule.words(),
        "units": profile.units.words(),
        "insertion": ", ".join(f"{k}={v}" for k, v in profile.insertion.items()),
        "generator": profile.generator.name,
    }
