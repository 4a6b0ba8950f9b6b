"""The encoder keeps the contract: one case a check. Install first: pip install -e ."""

from fusemix_core.testing import encoder_suite


@encoder_suite("colour-histogram")
def test_conforms(check):
    check()
