"""Files that come with synthaug beside its code: the trainers' scripts and the configurations."""

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Find a folder inside the package, as a wheel has it, or else beside the package, as a clone has it.

    Args:
        name: ``"trainers"`` or ``"configs"``.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parent
    places = (package / name, package.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"expected the folder {name} of synthaug's wheel or clone at {places[0]} or {places[1]}")


def shipped_configs() -> dict[str, Path]:
    """List the configurations that come with synthaug, name to file, in alphabetical order."""
    return {file.stem: file for file in sorted(shipped_folder("configs").glob("*.yaml"))}


def find_config(name_or_file: str | Path) -> Path:
    """Find a configuration's file: the one given, or the one of that name that comes with synthaug.

    Raises:
        ValueError: neither; the message has the names that there are.

    Example:
        >>> find_config("gan_tiny").name
        'gan_tiny.yaml'
    """
    file = Path(name_or_file)
    if file.is_file():
        return file
    known = shipped_configs()
    if str(name_or_file) not in known:
        raise ValueError(
            f"no configuration {name_or_file}: expected a YAML file, {file.absolute()} is none, or one of "
            f"{', '.join(known)}"
        )
    return known[str(name_or_file)]
