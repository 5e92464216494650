"""The command ``synthaug predict``."""

from pathlib import Path
from typing import Annotated

import typer

from synthaug.cli.errors import TRAIN, one_line_errors
from synthaug.cli.options import tell, tell_written
from synthaug.cli.profiles import ProfileOption


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a training run, or of its model.")],
    folder: Annotated[Path, typer.Argument(help="Folder of cases, labelled or not, or of one case.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the label maps, <case>.nii.gz.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="A further run whose probabilities are averaged in; may be given again.")
    ] = None,
    layout: Annotated[str, typer.Option(help="brats, nnunet, msd, bids, or auto to find out.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cuda:1; cuda where it is there, else cpu.")] = None,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="Average over the 8 mirror images, or not at all.")
    ] = None,
    overlap: Annotated[float | None, typer.Option(min=0, max=0.9, help="Of neighbouring windows.")] = None,
    profile: ProfileOption = None,
) -> None:
    """Segment cases with a trained model, or an ensemble; label maps have the affine and the grid of their case."""
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    failed = 0
    with one_line_errors(ValueError, OSError, ModuleNotFoundError, missing=TRAIN):
        from synthaug.profile.profile import Profile
        from synthaug.segmentation.model import Segmenter
        from synthaug.segmentation.predict import predict_folder

        model = Segmenter.load(run, *(also or ()), device=chosen)
        if profile is not None:
            known = Profile.load(profile)
            known.space.check_same(f"the profile {profile}", f"the model {run}", model.config.space)
        told = {"mirror": None if mirror is None else (0, 1, 2) if mirror else (), "overlap": overlap}
        changes = {key: value for key, value in told.items() if value is not None}
        for result in predict_folder(model, folder, out, layout, model.config.inference.model_copy(update=changes)):
            left_out = not isinstance(result, Path)
            failed += left_out
            tell(f"left out: {result}" if left_out else str(result), left_out)
    if failed:
        typer.echo(f"error: {failed} cases could not be segmented", err=True)
        raise typer.Exit(1)
    tell_written(out, "synthaug", "evaluate", out, folder, "--model", run)
