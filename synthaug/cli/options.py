"""Options that several commands have, and the errors of what was given."""

from typing import Annotated

import typer

ClassesOption = Annotated[
    str | None, typer.Option(help="Label vocabulary: BRATS18, BRATS23, BRATS24, MSD_BRAIN, or names: tumour=1.")
]
ChannelsOption = Annotated[str | None, typer.Option(help="Image channels, separated by commas.")]
LayoutOption = Annotated[str, typer.Option(help="brats, nnunet, msd, bids, or auto to find out.")]
PerOption = Annotated[str, typer.Option(help="lesion: connected lesions; case: all of a case's lesions as one.")]
ERRORS = (ValueError, TypeError, OSError, ImportError)
