"""Every kind of check that the model has, has a probe."""

from typing import get_args

from relevo.model import Check
from relevo.probes import kinds


def test_every_kind_of_check_has_a_probe():
    assert kinds() == set(get_args(Check))
