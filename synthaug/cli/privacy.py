"""The command ``synthaug privacy``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import one_line_errors, stoppable
from synthaug.cli.fidelity import GroupsOption, MasksOption, given, make_kit, profiled_cases
from synthaug.cli.options import ERRORS, tell_written
from synthaug.cli.profiles import ProfileOption


def privacy(
    generator: Annotated[str, typer.Argument(help="Name, folder or hub id, or the file of a bank.")],
    cases: Annotated[Path, typer.Option(help="Labelled cases: patients that it has seen and, best, others.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; that of synthaug fidelity goes on.")],
    profile: ProfileOption = None,
    bank: MasksOption = None,
    seen: Annotated[
        str | None, typer.Option(help="Patients that it has seen, separated by commas; what the weights say.")
    ] = None,
    groups: GroupsOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="The settings of synthaug fidelity --quick.")] = False,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, as of synthaug fidelity.")
    ] = None,
) -> None:
    """Measure whether a generator gives its training lesions away: copies, membership; a paragraph to be quoted."""
    with one_line_errors(*ERRORS):
        from synthaug.evaluation.privacy.measure import FIGURES, TEXT, measure_privacy

        known, chosen = profiled_cases(profile, cases, groups)
        with stoppable(out):
            kit = make_kit(generator, known, chosen, out, bank, quick, settings)
            found = measure_privacy(kit, _seen(generator, kit, seen))
    typer.echo(found["paragraph"])
    told = given(settings, profile=profile, bank=bank, groups=groups, quick=quick)
    written = f"{out / FIGURES}, {out / TEXT}"
    tell_written(written, "synthaug", "fidelity", generator, "--cases", cases, "--out", out, *told)


def _seen(generator: str, kit, given: str | None) -> set[str] | None:
    """Patients that a generator has seen: those given, of the bank that it pastes, or what its weights say."""
    from synthaug.generators.patients import generator_patients
    from synthaug.generators.registry import BUILT_IN

    if given is not None:
        return {name.strip() for name in given.split(",")}
    if kit.scene.generator.needs_donor or generator in BUILT_IN:
        return kit.scene.donors.patients
    found = generator_patients(generator)
    patient_of = {case.name: case.group for case in kit.scene.cases}
    if found is None:
        typer.echo(f"{generator} does not say whom it has seen: all patients are taken for seen (--seen)", err=True)
    return None if found is None else {patient_of.get(name, name) for name in found}
