"""What stays of a profile when its data set is fitted again: the recommended generator, if what it hangs on does."""

from pathlib import Path

from synthaug.config import ConfigError
from synthaug.generators.registry import is_known
from synthaug.lesions.bank import LesionBank
from synthaug.profile.profile import BANK, FILE, Generator, Profile


def with_recommendation(profile: Profile, bank: LesionBank, folder: Path) -> tuple[Profile, str]:
    """Take the recommended generator and the comparison over from the profile that is in a folder.

    Args:
        profile: the new one.
        bank: of the same data.
        folder: with the former profile and its bank, or none.

    Returns:
        The profile, and what was kept, or dropped and why; nothing where there was nothing to keep.
    """
    if not (folder / FILE).is_file():
        return profile, ""
    try:
        before = Profile.load(folder / FILE)
    except ConfigError as error:
        return profile, f"nothing is kept of the profile that was there: {error}"
    name = before.generator.name
    if before.generator == Generator():
        return profile, ""
    if changed := differences(before, profile, bank, folder):
        return profile, (
            f"generator: {name} is recommended no more, nor is its comparison kept: {'; '.join(changed)}; "
            "`synthaug fit --train` compares anew"
        )
    why = {key: text for key, text in before.why.items() if key == "generator"}
    kept = profile.model_copy(update={"generator": before.generator, "why": profile.why | why})
    return kept, f"generator: {name} stays recommended, for data, channels, classes, host rule and units are the same"


def differences(before: Profile, now: Profile, bank: LesionBank, folder: Path) -> list[str]:
    """Say in which respects a recommendation of another profile does not fit this one; nothing where it does.

    Args:
        before: profile with the recommendation.
        now: the other profile.
        bank: of the latter.
        folder: with the bank of the former, and with the generator where it is a folder.
    """
    both = [_words(before), _words(now)]
    changed = [f"{what} {was}, now {both[1][what]}" for what, was in both[0].items() if was != both[1][what]]
    if not changed and _checksum(folder / BANK) != bank.checksum:
        changed = ["its lesions are not those of the bank that was there"]
    name = before.generator.name
    if not is_known(name) and not (folder / name).is_dir():
        changed.append(f"there is no folder {folder / name}")
    return changed


def _words(profile: Profile) -> dict[str, str]:
    data, rule = profile.data, profile.space.rule
    return {
        "cases:": f"{data.cases} of {data.patients} patients",
        "channels:": ", ".join(profile.names),
        "classes:": ", ".join(f"{name}={value}" for name, value in profile.labels.lesions.items()),
        "host:": f"{rule.words()}{'' if rule.body is None else f', thicker than {rule.body.thinner_mm:g} mm'}",
        "units:": profile.units.words(),
    }


def _checksum(file: Path) -> int | None:
    try:
        return LesionBank.load(file).checksum
    except (OSError, ValueError):
        return None
