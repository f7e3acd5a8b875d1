"""Every data plane against one suite."""

import pytest

pytest.register_assert_rewrite("tests.conformance.suite")
