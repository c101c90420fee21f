"""`fleet receipt`: the proof of finished work, and whether it is whole. Verifying needs no fleet and no network."""

import os
from pathlib import Path

import click

from app import wiring
from app.config import settings
from app.domain import receipt as receipts
from app.domain import receipt_signature
from app.domain.errors import Kind, Refused
from app.services.receipt_key import NAME, public_key
from app.store import views


@click.group()
def receipt() -> None:
    """Show receipts, check them, and show the key they are signed with."""


@receipt.command()
@click.argument("task_id")
def show(task_id: str) -> None:
    """The signed receipt of a finished task, as the file that `verify` takes."""
    with wiring.fleet(connections=1).engine.begin() as conn:
        found = views.receipt_of(conn, task_id)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"{task_id} has no receipt: it is written when its work is merged.")
    click.echo(receipts.text(found), nl=False)


@receipt.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with the public key.")
def verify(file: Path, key: Path | None) -> None:
    """Say whether the receipt in FILE is whole: signed, and not changed by a single byte since."""
    trusted = key.read_text().strip() if key else _own_key()
    proof = receipt_signature.verify(file.read_bytes(), trusted)
    click.echo(f"{proof.get('task_id')}: the receipt is whole, signed with {proof['signature']['key']}")
    if trusted is None:
        click.echo("fleet: compare that key with what `fleet receipt key` prints where it was signed.", err=True)


@receipt.command("key")
def key_() -> None:
    """The public key that this fleet's receipts can be checked with."""
    click.echo(public_key(wiring.fleet(connections=1)))


def _own_key() -> str | None:
    """This fleet's own key, where there is one on this machine."""
    private = settings.read(os.environ).secret(NAME)
    return receipt_signature.public_key(private.lower()) if private else None
