"""The command ``synthaug fidelity``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors, stoppable
from synthaug.cli.options import ERRORS, tell_written
from synthaug.cli.profiles import ProfileOption

CasesOption = Annotated[
    Path, typer.Option(help="Folder of labelled cases, of patients that the generator did not see.")
]
MasksOption = Annotated[Path | None, typer.Option(help="Bank whose masks are inserted; those of the cases.")]
GroupsOption = Annotated[str | None, typer.Option(help="Patients to take, separated by commas; all by default.")]


def fidelity(
    generator: Annotated[
        str, typer.Argument(help="Name, folder or hub id; the file of a bank; or the controls: real, noise.")
    ],
    cases: CasesOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the measurement.")],
    profile: ProfileOption = None,
    bank: MasksOption = None,
    judge: Annotated[
        Path | None, typer.Option(help="Segmenter: a trained model's folder, or a Python file with a class Judge.")
    ] = None,
    groups: GroupsOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in minutes.")] = False,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as seeds=5 or device=cuda.")
    ] = None,
) -> None:
    """Measure how real a generator's lesions look beside real ones; the same command again goes on.

    It writes fidelity.html, fidelity.json, and reader.html, with which a reader tells real from synthetic lesions.
    """
    with one_line_errors(*ERRORS):
        from synthaug.evaluation.fidelity.page import PAGE, READER
        from synthaug.figures.slices import require_matplotlib

        require_matplotlib("the page of the fidelity kit")
        known, chosen = profiled_cases(profile, cases, groups)
        tell_seen(generator, chosen)
        with stoppable(out):
            found = make_kit(generator, known, chosen, out, bank, quick, settings, judge).run()
    for name, row in found["auc"].items():
        typer.echo(f"AUC {name}: {row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    told = given(settings, profile=profile, bank=bank, groups=groups, quick=quick)
    command, other, folder = _following(generator, out, judge is not None)
    written = f"{out / PAGE}, {out / READER}"
    tell_written(written, "synthaug", command, other, "--cases", cases, "--out", folder, *told)


def _following(generator: str, out: Path, judged: bool) -> tuple[str, str, Path]:
    """Command, generator and folder that follow: privacy of what was measured, where it can go on in its folder."""
    from synthaug.evaluation.fidelity.scene import CONTROLS

    if generator in CONTROLS:
        return "fidelity", "paste", out.with_name(f"{out.name}-paste")
    # privacy asks no segmenter, so that it would be another measurement in the same folder
    return "privacy", generator, out.with_name(f"{out.name}-privacy") if judged else out


def given(settings: Sequence[str] | None, **options: Path | str | bool | None) -> list[str]:
    """Words of the options and settings that were given, for another command that has them."""
    told = {f"--{name}": value for name, value in options.items() if value not in (None, False)}
    words = [word for name, value in told.items() for word in ([name] if value is True else [name, str(value)])]
    return words + list(settings or ())


def profiled_cases(profile: Path | None, folder: Path, groups: str | None):
    """Find the profile and the labelled cases of these patients.

    Raises:
        ValueError: no profile, no such patient, or no labelled case.
    """
    from synthaug.cli.profiles import told

    data = told(profile, folder)
    if data.profile is None:
        raise ValueError(f"profile: expected one beside the cases in {folder} or --profile; synthaug fit writes it")
    wanted = None if groups is None else {name.strip() for name in groups.split(",")}
    labelled = [case for case in data.training if case.label is not None]
    if wanted is not None and (unknown := wanted - {case.group for case in labelled}):
        raise ValueError(f"groups: no labelled case of {', '.join(sorted(unknown))} in {folder}")
    return data.profile, [case for case in labelled if wanted is None or case.group in wanted]


def make_kit(
    generator: str,
    profile,
    cases,
    out: Path,
    bank: Path | None,
    quick: bool,
    settings: list[str] | None,
    judge: Path | None = None,
):
    """Make the kit of the commands' options; it says on stderr how far it is."""
    from synthaug.evaluation.fidelity.config import FidelityConfig
    from synthaug.evaluation.fidelity.kit import Kit
    from synthaug.lesions.bank import LesionBank

    config = checked_settings(FidelityConfig.quick() if quick else FidelityConfig(), settings)
    donors = None if bank is None else LesionBank.load(bank)
    return Kit(generator, profile, cases, out, config, donors, judge, lambda text: typer.echo(text, err=True))


def checked_settings(config, settings: list[str] | None):
    """Change a configuration by ``key=value``; what is wrong is a `ConfigError` that names the key."""
    from synthaug.config import overridden, read_config

    if not settings:
        return config
    content = overridden({}, settings)
    return read_config(
        None, type(config), [f"{key}={value}" for key, value in (config.model_dump(mode="json") | content).items()]
    )


def tell_seen(generator: str, cases) -> None:
    """Say on stderr which of the patients a generator has seen, for its figures flatter it then."""
    from synthaug.data.folds import patients_among
    from synthaug.generators.patients import generator_patients

    if Path(generator).is_file():
        return
    if shared := patients_among(cases, generator_patients(generator) or ()):
        typer.echo(f"warning: {generator} has seen {', '.join(shared)}: its figures here flatter it", err=True)
