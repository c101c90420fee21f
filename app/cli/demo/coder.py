"""Plays a coding CLI by a script: reads a prompt on stdin, edits files, prints events like Codex does."""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path

BUG, FIX = "range(len(prices) - 1)", "range(len(prices))"
PLAIN = '    """The sum of all prices."""\n    return sum(prices)\n'


def main() -> None:
    args = _arguments()
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    prompt = sys.stdin.buffer.read()
    print_event({"type": "thread.started", "thread_id": args.resume or str(uuid.uuid4())})
    print_event({"type": "turn.started"})
    until = time.monotonic() + args.seconds
    while time.monotonic() < until or is_held(args.hold, prompt):
        print_event({"type": "item.completed", "item": {"type": "reasoning", "text": "thinking"}})
        time.sleep(min(0.2, args.seconds) or 0.2)
    text = "I changed nothing." if args.nothing else work(prompt, again=bool(args.resume))
    print_event({"type": "item.completed", "item": {"type": "agent_message", "text": text}})
    if args.exit:
        print_event({"type": "turn.failed", "error": {"message": "told to fail"}})
        sys.exit(args.exit)
    turns = 2 if args.resume else 1  # Codex counts the whole session
    used = {"input_tokens": 1200 * turns, "cached_input_tokens": 200 * turns, "output_tokens": 90 * turns}
    print_event({"type": "turn.completed", "usage": used})


def is_held(hold: Path | None, prompt: bytes) -> bool:
    """Whether the file exists and the prompt contains its text."""
    try:
        return hold is not None and hold.read_bytes() in prompt
    except FileNotFoundError:
        return False


def work(prompt: bytes, again: bool) -> str:
    """Fix the bug of the sample repository, or simplify the code again; elsewhere, write the prompt to a file."""
    core = Path("widgets/core.py")
    if core.exists() and BUG in core.read_text():
        core.write_text(core.read_text().replace(BUG, FIX))
        return "total() left out the last price; now it adds them all."
    if core.exists() and again:
        head, _, _ = core.read_text().partition('    """The sum of all prices."""')
        core.write_text(head + PLAIN)
        return "total() uses sum() now, as the review asked."
    name = f"work-{hashlib.sha256(prompt).hexdigest()[:12]}.md"
    Path(name).write_bytes(prompt)
    return f"I wrote {name}."


def print_event(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CODER_SECONDS", "0")))
    parser.add_argument("--hold", type=Path, help="work on while this file exists and the prompt contains its text")
    parser.add_argument("--exit", type=int, default=0)
    parser.add_argument("--nothing", action="store_true")
    parser.add_argument("--ignore-term", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
