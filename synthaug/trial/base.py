"""The segmentation configuration that a trial begins with, where a profile of the data is there."""

from collections.abc import Callable
from pathlib import Path

from synthaug.config import ConfigError
from synthaug.trial.config import TrialConfig, one_line

PLANNED = ("data.", "network.")
"""Overrides that a profile's plan takes the place of."""


def with_profile(
    config: TrialConfig, profile: Path | None, data: Path | None, say: Callable[[str], None]
) -> tuple[TrialConfig, list[str]]:
    """Take the base from beside a profile, so that voxel size, patch, network and classes are those of the data.

    Args:
        config: of the trial; where its base is the name of a configuration beside the profile, it is that one.
        profile: its file or folder; where not given, that beside the cases is taken.
        data: folder of the cases.
        say: takes a line that says what was taken.

    Returns:
        The trial with its base, and overrides for all arms that say where the data lie.

    Raises:
        ConfigError: no segmentation configuration beside the profile.
    """
    from synthaug.data.dataset import data_folder
    from synthaug.profile.profile import find_profile
    from synthaug.profile.use import file_of

    told = [] if data is None else [f"data.folder={one_line(str(data_folder(data).resolve()))}"]
    path = find_profile(data) if profile is None else file_of(profile)
    if path is None:
        return config, told
    own = path.resolve().parent / f"{Path(config.base).stem}.yaml"
    base = own if own.is_file() else path.resolve().parent / "segmentation.yaml"
    if not base.is_file():
        raise ConfigError(f"{base}: not there; make it by `synthaug fit`")
    kept = tuple(o for o in config.overrides if not o.startswith(PLANNED))
    say(f"profile: {path}{' (beside the cases)' if profile is None else ''}")
    say(f"base: {base} in place of {config.base}, whose changes of data and network are left out")
    profiled = f"data.profile={one_line(str(path.resolve()))}"
    return config.model_copy(update={"base": str(base), "overrides": kept}), [profiled, *told]
