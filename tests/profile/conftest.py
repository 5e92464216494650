"""A fitted data set that the tests of profiles share."""

import pytest
from limbs import write_nnunet

from synthaug.profile.fit import fit


@pytest.fixture(scope="session")
def limbs_fitted(tmp_path_factory):
    folder = write_nnunet(tmp_path_factory.mktemp("ct") / "limbs", lambda tumour, _: tumour, None)
    return fit(folder)
