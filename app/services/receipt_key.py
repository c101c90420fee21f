"""Signs receipts with the fleet's own key, which is created with the first receipt."""

import os

from app.config.settings import secret_path
from app.domain import receipt_signature
from app.domain.receipt import Receipt
from app.domain.receipt_signature import SignedReceipt
from app.ports import Fleet

NAME = "FLEET_RECEIPT_KEY"


def sign(fleet: Fleet, body: Receipt) -> SignedReceipt:
    """The receipt with our signature."""
    return receipt_signature.sign(body, private_key(fleet))


def public_key(fleet: Fleet) -> str:
    """The key that checks our receipts, as hex digits."""
    return receipt_signature.public_key(private_key(fleet))


def private_key(fleet: Fleet) -> str:
    """Our private key: from FLEET_RECEIPT_KEY, else from FLEET_HOME, where it is created with mode 0600."""
    given = fleet.config.secret(NAME)
    if given:
        return given.lower()
    path = secret_path(fleet.config.home, NAME)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(receipt_signature.new_key() + "\n")
    try:
        os.link(new, path)  # fails if another process has created the key meanwhile
    except FileExistsError:
        pass
    finally:
        new.unlink()
    return path.read_text().strip()
