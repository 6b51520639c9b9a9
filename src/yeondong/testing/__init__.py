"""Conformance suites for drivers, and what tests of an application need."""

import pytest

# So that a failing suite shows the values, as a test of the driver's own would. Must come before the suites' import.
pytest.register_assert_rewrite("yeondong.testing.broker_suite", "yeondong.testing.store_suite")
