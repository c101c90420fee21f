"""Replaces sshd on machines without it: asyncssh's server, with the same keys. `sshd.py ADDRESSES PORT FOLDER`."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh


class Server(asyncssh.SSHServer):
    """Lets others be reached over it."""

    def connection_requested(self, *_: Any) -> bool:
        return True


async def run(process: "asyncssh.SSHServerProcess[bytes]", home: str) -> None:
    """A session: the command in a shell, as sshd does it."""
    shell = ("/bin/sh", "-c", process.command or "exec /bin/sh")
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "SHELL": "/bin/sh"}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*shell, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    feeding = asyncio.create_task(feed(process.stdin, child.stdin))
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    process.exit(await child.wait())
    feeding.cancel()


async def feed(source: Any, sink: Any) -> None:
    await pump(source, sink)
    with suppress(OSError):
        sink.write_eof()


async def pump(source: Any, sink: Any) -> None:
    """Bytes from one to the other until there are no more."""
    with suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


async def serve(addresses: list[str], port: int, folder: Path) -> None:
    """Serve until we are ended."""
    for address in addresses:
        await asyncssh.listen(
            address, port, server_host_keys=[str(folder / "host_key")], encoding=None, allow_scp=False,
            server_factory=Server, authorized_client_keys=str(folder / "authorized_keys"),
            process_factory=lambda process: run(process, str(folder / "home")),
        )  # fmt: skip
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1].split(","), int(sys.argv[2]), Path(sys.argv[3])))
