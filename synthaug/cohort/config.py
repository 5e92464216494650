"""Models of a cohort's configuration, which is data-only YAML or keyword arguments."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from synthaug.channels import canonical_channels
from synthaug.classes import Classes, get_classes
from synthaug.cohort.layouts import LAYOUTS
from synthaug.cohort.sections import (
    SIZES_MM,
    AboutConfig,
    BalanceConfig,
    GateConfig,
    HostsConfig,
    LesionsConfig,
    PackingConfig,
    ShapesConfig,
    SplitsConfig,
)
from synthaug.config import ConfigError, Section
from synthaug.host.space import Space
from synthaug.lesions.places import PlaceFrequency
from synthaug.remote import Place, as_place, is_url, local_file, local_folder

__all__ = [
    "SIZES_MM",
    "AboutConfig",
    "BalanceConfig",
    "CohortConfig",
    "GateConfig",
    "HostsConfig",
    "LesionsConfig",
    "PackingConfig",
    "ShapesConfig",
    "SplitsConfig",
]


class CohortConfig(Section):
    """Configures a whole cohort.

    Attributes:
        profile: of the data set (`synthaug fit`): what is not given here is the profile's.
        cases: folder of the hosts, or its URL.
        layout: name of the layout that is written, one of `LAYOUTS`.
        count: number of cases; not with `balance`.
        generator: name, folder or hub id; by default ``paste`` with a bank and ``procedural`` without.
        generator_options: of `load_generator`, such as ``{steps: 4}``, for a trained generator.
        classes: vocabulary of the hosts' labels; where not given, what their data set or the bank says.
        channels: of the hosts that are read and written, in this order; where not given, those of the hosts.
        seed: of everything random; a case depends on it and on the case's number alone.
        exclude: file of decisions (`synthaug view`): numbers of rejected cases are skipped, and further ones made.
        prefix: of the cases' names.
        include_real: also write the labelled host cases as they are, under their own names.
        threads: CPU threads of the insertion in each process; another number may round otherwise.
        compression: gzip level of the files.
        workers: threads of each process that write; has no influence on what is written.

    Example:
        >>> config = CohortConfig(cases="brats", layout="msd", count=50, lesions={"bank": "bank.safetensors"})
        >>> config.total, config.generator_name
        (50, 'paste')
    """

    profile: Path | None = None
    cases: Place
    layout: str
    count: PositiveInt | None = None
    generator: str | None = None
    generator_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    classes: str | dict[str, int] | None = None
    channels: tuple[str, ...] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    exclude: Path | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$")] = "synth"
    hosts: HostsConfig = HostsConfig()
    lesions: LesionsConfig = LesionsConfig()
    gate: GateConfig | None = None
    splits: SplitsConfig = SplitsConfig()
    balance: BalanceConfig | None = None
    about: AboutConfig = AboutConfig()
    packing: PackingConfig = PackingConfig()
    include_real: bool = False
    threads: PositiveInt = 1
    compression: Annotated[int, Field(ge=1, le=9)] = 1
    workers: PositiveInt = 2

    @model_validator(mode="before")
    @classmethod
    def _from_profile(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("profile") is None:
            return content
        from synthaug.profile.profile import BANK, Profile
        from synthaug.profile.use import INSTEAD, filled, folder_of, generator_of

        profile, home = Profile.load(content["profile"]), folder_of(content["profile"])
        lesions = dict(content.get("lesions") or {})
        replaced = {other for name in lesions for other in INSTEAD.get(name, ())}
        options = {k: v for k, v in profile.insertion.items() if k in LesionsConfig.model_fields and k not in replaced}
        if "shapes" not in lesions and (home / BANK).is_file():
            options["bank"] = home / BANK
        own = {
            "cases": profile.data.folder,
            "layout": profile.data.layout,
            "classes": dict(profile.labels.lesions),
            "channels": profile.names,
            "generator": generator_of(profile, home) if "shapes" not in lesions else None,
            "gate": {} if "shapes" not in lesions else None,
        }
        hosts = {"layout": profile.data.layout, "group_pattern": profile.data.group_pattern}
        return filled(content, own) | {
            "lesions": filled(lesions, options),
            "hosts": filled(content.get("hosts") or {}, hosts),
        }

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise ValueError(f"expected {', '.join(LAYOUTS)}, got {value!r}")
        return value

    @field_validator("channels")
    @classmethod
    def _known_channels(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else canonical_channels(value)

    @model_validator(mode="after")
    def _fits(self):
        if (self.count is None) == (self.balance is None):
            raise ValueError("expected count or balance.per_class, one of the two")
        if self.balance is not None and (self.lesions.range_per_case != (1, 1) or self.hosts.tumour != "free"):
            raise ValueError(
                "balance: the kind of a case is that of its only lesion; expected lesions.per_case=1 and "
                f"hosts.tumour=free, got {self.lesions.per_case} and {self.hosts.tumour}"
            )
        if self.balance is not None and self.exclude is not None:
            raise ValueError("exclude: a balanced set would be none without the rejected cases; expected no balance")
        if self.balance is not None and self.balance.by == "size" and self.lesions.scale is not None:
            raise ValueError("balance by size sets the diameter; expected no lesions.scale")
        return self

    def fetched(self) -> Self:
        """The same with cases, bank and generator on this machine: those given by URLs are fetched into the cache.

        Raises:
            ConfigError: one of them cannot be reached.
        """
        try:
            return self.with_places(local_folder, local_file)
        except OSError as error:
            raise ConfigError(str(error)) from error

    def with_places(self, of_folder: Callable[[Any], Any], of_file: Callable[[Any], Any] | None = None) -> Self:
        """The same with other places of cases, bank and a generator that is a folder or a URL."""
        changed: dict[str, Any] = {"cases": as_place(of_folder(self.cases))}
        if (bank := self.lesions.bank) is not None:
            changed["lesions"] = self.lesions.model_copy(update={"bank": as_place((of_file or of_folder)(bank))})
        name = self.generator or ""
        if is_url(name) or ("/" in name and Path(name).is_dir()):
            changed["generator"] = str(of_folder(name))
        return self.model_copy(update=changed)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of the channels.

        Raises:
            ValueError: they are not known yet; see `synthaug.cohort.hosts.described`.
        """
        if self.channels is None:
            raise ValueError("channels: expected names, got none")
        return self.channels

    @property
    def vocabulary(self) -> Classes:
        """Vocabulary that `classes` names.

        Raises:
            ValueError: they are not known yet; see `synthaug.cohort.hosts.described`.
        """
        if self.classes is None:
            raise ValueError("classes: expected a vocabulary or names and values, got none")
        return get_classes(self.classes)

    @cached_property
    def space(self) -> Space:
        """Host rule and units: the profile's, and the range of host tissue where one is given."""
        from synthaug.profile.profile import Profile

        space = Space() if self.profile is None else Profile.load(self.profile).space
        if self.hosts.tissue_range is None:
            return space
        ranged = {
            "stripped": space != Space() and space.rule.stripped,
            "range": {self.names[0]: self.hosts.tissue_range},
        }
        return Space(rule=space.rule.model_copy(update=ranged), units=space.units)

    @property
    def places(self) -> PlaceFrequency | None:
        """How often lesions lie where, by the profile; None without one."""
        from synthaug.profile.profile import Profile

        return None if self.profile is None else Profile.load(self.profile).where.places

    @property
    def kinds(self) -> tuple[str | None, ...]:
        """Kinds of cases in a balanced set: classes or sizes; (None,) otherwise."""
        if self.balance is None:
            return (None,)
        return self.vocabulary.names if self.balance.by == "class" else tuple(self.balance.sizes_mm)

    @property
    def total(self) -> int:
        """Number of synthetic cases asked for."""
        if self.balance is not None:
            return self.balance.per_class * len(self.kinds)
        assert self.count is not None  # `_fits` asks for one of the two
        return self.count

    @property
    def generator_name(self) -> str:
        """Name of the generator asked for, or of the default."""
        return self.generator or ("procedural" if self.lesions.bank is None else "paste")
