"""`fleet receipt`: shows and verifies receipts, the signed proofs of finished work."""

import os
from pathlib import Path

import click

from app.cli.connect import open_fleet
from app.domain.errors import Kind, Refused

existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def receipt() -> None:
    """Show and verify signed receipts of finished tasks."""


@receipt.command()
@click.argument("task_id")
def show(task_id: str) -> None:
    """Print the signed receipt of a finished task, for `verify`."""
    from app.domain.receipt import text
    from app.store import views

    with open_fleet().engine.begin() as conn:
        found = views.receipt_of(conn, task_id)
    if found is None:
        raise Refused(Kind.UNKNOWN, f"{task_id} has no receipt: it is written when its work is merged.")
    click.echo(text(found), nl=False)


@receipt.command()
@click.argument("file", type=existing_file)
@click.option("--key", type=existing_file, help="A file with the public key.")
def verify(file: Path, key: Path | None) -> None:
    """Verify the signature of the receipt in FILE.

    Needs no fleet and no network. Without --key, uses this machine's own key, if there is one.
    """
    from app.domain import receipt_signature

    trusted = key.read_text().strip() if key else _own_public_key()
    verified = receipt_signature.verify(file.read_bytes(), trusted)
    click.echo(f"{verified.get('task_id')}: the receipt is whole, signed with {verified['signature']['key']}")
    if trusted is None:
        click.echo("fleet: compare this key with `fleet receipt key` on the machine that signed it.", err=True)


@receipt.command("key")
def print_key() -> None:
    """Print the public key that verifies this fleet's receipts."""
    from app.services.receipt_key import public_key

    click.echo(public_key(open_fleet()))


def _own_public_key() -> str | None:
    """The public key of this machine's fleet; None without a private key here."""
    from app.config import settings
    from app.domain import receipt_signature
    from app.services.receipt_key import NAME

    private = settings.read(os.environ).secret(NAME)
    return receipt_signature.public_key(private.lower()) if private else None
