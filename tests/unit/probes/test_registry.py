"""Every kind of check that asks over the network has an exchange."""

from typing import get_args

from relevo.model.checks import AskedCheck
from relevo.probes import kinds


def test_every_kind_of_check_that_asks_has_an_exchange():
    assert kinds() == set(get_args(AskedCheck))
