"""Short timeouts of an SSH connection, for tests in which a step never ends by itself."""

from tests.patience import patient
from workers.ssh.connection import Timeouts

QUICK = Timeouts(connect=patient(0.6), login=patient(1.5), channel=patient(0.6), answer=patient(1.0))
