"""The client of the webhook endpoint."""

import pytest
from flask.testing import FlaskClient

from tests.workshop import Workshop


@pytest.fixture
def client(workshop: Workshop) -> FlaskClient:
    """A client without an operator's token: only its signature proves where a delivery comes from."""
    return workshop.client
