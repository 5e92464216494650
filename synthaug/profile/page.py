"""`profile.html`: what was found, pictures of it, what follows, and each decision with its reason and its key."""

from typing import TYPE_CHECKING, Any

from synthaug.figures.html import render
from synthaug.profile.inserted import in_trainings
from synthaug.profile.pictures import case_pictures, measurements
from synthaug.profile.profile import Profile

if TYPE_CHECKING:
    from synthaug.profile.fit import Fitted


def page(fitted: "Fitted") -> str:
    """Render the page, which needs no other file."""
    profile = fitted.profile
    return render(
        "profile.html",
        folder=profile.data.folder.rstrip("/").rpartition("/")[2],
        profile=profile,
        sentence=_sentence(profile),
        tiles_shown=_tiles(profile),
        cases=case_pictures(profile, fitted.cases),
        measurements=measurements(profile, fitted.look),
        bounds=bool({*profile.host.range} & {*profile.units.fixed}),
        found=[*_found(profile), ("what trainings insert", in_trainings(profile, fitted.cases))],
        decisions=[[key, _value(profile, key), why] for key, why in sorted(profile.why.items())],
        commands=_commands(fitted),
    )


def _sentence(profile: Profile) -> str:
    data, sizes = profile.data, profile.sizes
    return (
        f"{sizes.lesions} lesions in {data.cases} cases say where, how large and by what look new ones go in; each "
        f"decision is below with its reason, and {len(data.left_out)} cases were left out."
    )


def _tiles(profile: Profile) -> list[tuple[str, str]]:
    sizes = profile.sizes
    return [
        (f"{profile.data.cases}", f"cases of {profile.data.patients} patients"),
        (", ".join(dict.fromkeys(c.modality for c in profile.channels)), f"{', '.join(profile.names)}"),
        (f"{sizes.lesions}", f"lesions of {', '.join(profile.labels.lesions)}"),
        (f"{sizes.diameter_mm[2]:.0f} mm", f"median; {sizes.diameter_mm[0]:.0f} to {sizes.diameter_mm[4]:.0f} mm most"),
        (profile.generator.name, "generator that all commands take"),
    ]


def _found(profile: Profile) -> list[tuple[str, str]]:
    labels = profile.labels
    roles = [f"{word}: {_named(values)}" for word, values in vars(labels).items() if values and word != "regions"]
    return [
        ("labels", "; ".join(roles)),
        ("host tissue", profile.space.rule.words()),
        ("units", profile.units.words()),
        ("voxel size of training", " x ".join(f"{s:g}" for s in profile.plan.spacing_mm) + " mm"),
        ("patch", " x ".join(map(str, profile.plan.patch_size)) + f", batch {profile.plan.batch}"),
        ("generators", _compared(profile)),
        ("left out", "; ".join(profile.data.left_out) or "nothing"),
        ("without a label", ", ".join(profile.data.unlabelled) or "none"),
    ]


def _compared(profile: Profile) -> str:
    rows = profile.generator.compared
    figures = "; ".join(f"{n}: {', '.join(f'{k} {v:g}' for k, v in row.items())}" for n, row in rows.items())
    return figures or "not compared yet (synthaug fit --train)"


def _named(values: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _value(profile: Profile, key: str) -> str:
    """Write the value at a dotted key, short."""
    value: Any = profile.model_dump(mode="json")
    for part in key.split("."):
        if isinstance(value, list):
            value = next((item for item in value if item.get("name") == part), None)
        else:
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return ""
    return f"{value}"


def _commands(fitted: "Fitted") -> list[str]:
    out = fitted.out
    return [
        f"synthaug insert {fitted.profile.data.folder} --profile {out} --out inserted",
        f"synthaug cohort --config {out / 'cohort.yaml'} --out cohort",
        f"synthaug train segmentation --profile {out}",
        f"synthaug train gan --profile {out}",
    ]
