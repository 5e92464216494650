"""Cases that a review rejected: their numbers are skipped, so that every other case is what it was."""

import itertools
from collections.abc import Sequence

from synthaug.cohort.config import CohortConfig
from synthaug.cohort.layouts.base import Layout
from synthaug.config import ConfigError
from synthaug.review import read_rejected


def numbers_left(config: CohortConfig, layout: Layout) -> Sequence[int]:
    """List the numbers of a cohort's synthetic cases: from 0 on, but those whose names the review rejected.

    Raises:
        ConfigError: a file that is not of a review, or one that rejects no case by a name of this cohort.
    """
    if config.exclude is None:
        return range(config.total)
    try:
        rejected = set(read_rejected(config.exclude))
    except ValueError as error:
        raise ConfigError(f"exclude: {error}") from error
    kept = (number for number in itertools.count() if layout.synthetic_name(number) not in rejected)
    numbers = list(itertools.islice(kept, config.total))
    if rejected and numbers == list(range(config.total)):
        names = ", ".join(sorted(rejected)[:3])
        raise ConfigError(
            f"exclude: {config.exclude} rejects {names}; the cases here are {layout.synthetic_name(0)}, ..."
        )
    return numbers
