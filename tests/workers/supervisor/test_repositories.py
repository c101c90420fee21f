"""What a repository brings along on a host: hooks around the steps, submodules, and the flags of an installed CLI."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tarfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.workers.supervisor.test_supervisor import Host, Json, ask, commit, eventually, git, push_by_somebody
from workers.supervisor.askpass import ASKPASS
from workers.supervisor.submodules import resolve_url

PATIENT = {"wall_secs": 60, "silence_secs": 60}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class Closed:
    """A forge that wants a name and a password of everybody."""

    def __enter__(self) -> Closed:
        class Asks(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="lib"')
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Asks)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class TestHooks:
    def test_run_around_the_steps_in_the_worktree(self, host: Host) -> None:
        hooks = {"after_prepare": ["echo 1 > order"], "before_agent": ["echo 2 >> order"], "after_agent": ["echo 4 >> order"],
                 "before_deliver": ["echo 5 >> order"]}  # fmt: skip
        result = host.finished("echo 3 >> order", hooks=hooks)
        assert result["pushed"] and host.forge_git("show", "task/12-fix:order").split() == list("12345")
        assert [note["hook"] for note in result["hooks"]] == list(hooks)

    def test_that_fails_ends_the_run_with_its_last_words(self, host: Host) -> None:
        host.on_forge("echo x > x", hooks={"before_agent": ["echo the tools are missing; exit 3", "echo never"]})
        result = host.result()
        assert (result["end"], result["failure"], result["step"]) == ("failed", "hook_failed", "agent")
        assert "ended with 3: the tools are missing" in result["reason"] and not result["pushed"]
        assert len(result["hooks"]) == 1

    def test_before_there_is_a_worktree_run_in_the_runs_folder(self, host: Host) -> None:
        result = host.finished("true", hooks={"before_prepare": [f"pwd; ls {host.worktree} || echo none yet"]})
        (note,) = result["hooks"]
        assert note["tail"].splitlines()[0] == str(host.folder()) and note["tail"].endswith("none yet\n")
        host.on_forge("true", hooks={"before_prepare": ["exit 4"]}, fence=2)
        again = host.result("t-12.2")
        assert (again["failure"], again["step"], again["base"]) == ("hook_failed", "prepare", None)

    def test_that_fails_after_the_delivery_is_a_warning_and_the_delivery_stands(self, host: Host) -> None:
        result = host.finished("echo x > x", hooks={"after_deliver": ["echo no chat here; exit 3", "echo never"]})
        assert result["pushed"] and (result["failure"], result["reason"]) == (None, None)
        (said,) = result["warnings"]
        assert "hook after_deliver" in said and said.endswith("ended with 3: no chat here")

    def test_that_hangs_is_ended(self, host: Host) -> None:
        host.start("true", hooks={"after_agent": ["sleep 60"]}, limits={"hook_secs": 0.3})
        assert "ended with 124" in host.result()["reason"]

    def test_sees_no_credential(self, host: Host) -> None:
        secret = {"username": "fleet", "password": "hunter22"}
        host.finished("true", hooks={"after_agent": ["env > seen; ps -eo args >> seen"]}, credentials=secret)
        assert "hunter22" not in host.forge_git("show", "task/12-fix:seen")

    @pytest.mark.parametrize("hooks", [{"before_agent": "rm"}, {"before_agent": [1]}, {"before_agent": ["a\0b"]}, [1]])
    def test_of_a_wrong_shape_is_answered_with_a_sentence(self, host: Host, hooks: object) -> None:
        _, answer = host.call("start", host.wish("true", hooks=hooks))
        assert "error" in answer


class TestSubmodules:
    @pytest.fixture(params=["absolute", "relative"])
    def lib(self, host: Host, request: pytest.FixtureRequest) -> Path:
        """The module's own repository, beside the forge's; its address in .gitmodules is absolute, or `../lib.git`."""
        host.make_forge()
        seed, lib = host.place / "seed", host.forge.parent / "lib.git"
        git("init", "--quiet", "--initial-branch=main", str(lib))
        (lib / "lib.txt").write_text("of the module\n")
        commit(lib, "lib")
        git("-C", str(seed), "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{lib}", "lib")
        if request.param == "relative":
            git("-C", str(seed), "config", "--file", ".gitmodules", "submodule.lib.url", "../lib.git")
        commit(seed, "with a module")
        git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")
        return lib

    def test_are_there_when_the_agent_begins(self, host: Host, lib: Path) -> None:
        assert lib.exists()
        assert host.finished("cp lib/lib.txt copy.txt")["pushed"]
        assert host.forge_git("show", "task/12-fix:copy.txt") == "of the module"
        assert host.finished("cat lib/lib.txt > again.txt; echo built > lib/build.log", fence=2)["pushed"]

    def test_are_none_where_no_file_names_any(self, host: Host) -> None:
        host.make_forge()
        (host.place / "seed" / ".gitmodules").touch()
        commit(host.place / "seed", "without any")
        git("-C", str(host.place / "seed"), "push", "--quiet", f"file://{host.forge}", "main")
        assert host.finished("echo x > x")["pushed"]

    def test_are_fetched_although_a_git_of_a_killed_host_left_its_locks(self, host: Host, lib: Path) -> None:
        host.finished("cat lib/lib.txt > one")
        (module,) = host.home.glob("modules/*.git")
        lock = module / "refs" / "heads" / "main.lock"
        lock.touch()
        os.utime(lock, (0, 0))
        self.move_on(host, lib, "newer")
        self.next_task(host, "cat lib/lib.txt; echo x > x")
        assert host.said(run="t-13.1") == "newer\n"

    def move_on(self, host: Host, lib: Path, text: str) -> None:
        (lib / "lib.txt").write_text(text + "\n")
        commit(lib, text)
        seed, newer = host.place / "seed", git("-C", str(lib), "rev-parse", "HEAD")
        git("-C", str(seed), "update-index", "--cacheinfo", f"160000,{newer},lib")
        git("-C", str(seed), "commit", "--quiet", "-m", f"{text} lib")
        git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")

    def next_task(self, host: Host, script: str) -> Json:
        own = {"run": "t-13.1", "task": "t-13", "repository": host.repository(branch="task/13")}
        return host.finished(script, **own)

    def test_come_from_this_host_for_every_further_task(self, host: Host, lib: Path) -> None:
        host.finished("cat lib/lib.txt > one")
        away = lib.rename(lib.with_name("away.git"))
        assert self.next_task(host, "cat lib/lib.txt; git -C lib remote get-url origin; echo x > x")["pushed"]
        said = host.said(run="t-13.1")
        assert said == f"of the module\nfile://{lib}\n", "the module's own forge is its origin, not a folder of ours"
        assert away.exists()

    def test_are_fetched_again_where_the_repository_has_moved_them_on(self, host: Host, lib: Path) -> None:
        host.finished("cat lib/lib.txt > one")
        self.move_on(host, lib, "newer")
        git("-C", str(lib), "reset", "--quiet", "--hard", "HEAD~1")
        self.next_task(host, "cat lib/lib.txt; echo x > x")
        assert host.said(run="t-13.1") == "newer\n", "also a commit that no branch has any more"

    def test_of_submodules_are_there_too(self, host: Host, lib: Path) -> None:
        deep, seed = lib.with_name("deep"), host.place / "seed"
        git("init", "--quiet", "--initial-branch=main", str(deep))
        (deep / "deep.txt").write_text("deep\n")
        commit(deep, "deep")
        git(
            "-C",
            str(lib),
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            f"file://{deep}",
            "in/deep",
        )
        git("-C", str(lib), "config", "--file", ".gitmodules", "submodule.in/deep.url", "../deep")
        commit(lib, "deeper")
        git("-C", str(seed / "lib"), "-c", "protocol.file.allow=always", "pull", "--quiet", f"file://{lib}", "main")
        commit(seed, "deeper")
        git("-C", str(seed), "push", "--quiet", "--recurse-submodules=no", f"file://{host.forge}", "main")
        assert host.finished("cat lib/in/deep/deep.txt > copy.txt")["pushed"]
        deep.rename(deep.with_name("gone"))
        assert self.next_task(host, "cat lib/in/deep/deep.txt > copy.txt")["pushed"]

    def test_moved_on_to_what_others_pushed_are_delivered(self, host: Host, lib: Path) -> None:
        (lib / "lib.txt").write_text("newer\n")
        commit(lib, "newer")
        script = "cd lib && git -c protocol.file.allow=always fetch --quiet origin && git checkout --quiet origin/main"
        assert host.finished(script)["pushed"]
        assert host.forge_git("rev-parse", "task/12-fix:lib") == git("-C", str(lib), "rev-parse", "main").strip()

    @pytest.mark.parametrize(
        "more", ["", " && git add . && git -c user.name=a -c user.email=a@b commit --quiet -m mine"]
    )
    def test_that_the_agent_changed_itself_are_not_offered(self, host: Host, lib: Path, more: str) -> None:
        assert lib.exists()
        host.on_forge(f"echo mine > new.txt; cd lib && echo mine > lib.txt{more}")
        result = host.result()
        assert (result["end"], result["failure"], result["pushed"]) == ("failed", "submodule_changed", False)
        assert "submodule lib" in result["reason"]


@pytest.mark.parametrize(
    ("url", "relative", "found"),
    [("https://forge/team/app.git", "../lib.git", "https://forge/team/lib.git"), ("https://forge/a/b/", "../../c/d/", "https://forge/c/d"),
     ("https://forge/a/b", "./c", "https://forge/a/b/c"), ("git@forge:team/app", "../lib", "git@forge:team/lib"),
     ("git@forge:app", "../lib", "git@forge:lib"), ("/srv/app.git", ".././lib", "/srv/lib")],
)  # fmt: skip
def test_a_relative_address_of_a_submodule_is_read_as_git_reads_it(url: str, relative: str, found: str) -> None:
    assert resolve_url(url, relative) == found


class TestARepositoryWithinTheWorktree:
    """As a `git clone` or `git init` of the agent leaves it there."""

    CLONE = "git clone --quiet . vendor/lib 2>&1; echo mine > mine"
    EMPTY = "git init --quiet vendor/lib; echo mine > mine"
    ADD = "git -c advice.addEmbeddedRepo=false add --all"
    COMMIT = "git -c user.name=a -c user.email=a@b commit --quiet -m mine"

    @pytest.mark.parametrize("more", ["", f"; {ADD}", f"; {ADD}; {COMMIT}"])
    def test_is_left_out_with_a_warning(self, host: Host, more: str) -> None:
        result = host.finished(self.CLONE + more)
        assert result["pushed"]
        assert host.forge_git("ls-tree", "-r", "--name-only", "task/12-fix").split() == ["README", "mine"]
        (said,) = result["warnings"]
        assert said.startswith("vendor/lib was left out: it is a git repository of its own")
        assert (host.worktree / "vendor" / "lib" / "README").exists(), "the agent may need it again"
        assert host.finished("echo more > mine", fence=2)["pushed"]

    def test_that_is_empty_is_left_out_too(self, host: Host) -> None:
        result = host.finished(self.EMPTY)
        assert result["pushed"] and len(result["warnings"]) == 1

    def test_is_no_delivery_by_itself(self, host: Host) -> None:
        result = host.finished("git clone --quiet . lib")
        assert (result["changed"], result["pushed"], len(result["warnings"])) == (False, False, 1)

    def test_is_saved_at_the_release_where_it_was_begun_here(self, host: Host) -> None:
        host.finished("git clone --quiet . lib; git init --quiet own; echo work > own/work")
        wish = {"run": "t-12.1", "task": "t-12", "worktree": True, "repository": host.repository()}
        saved = Path(host.ask("release", **wish)["saved"])
        with tarfile.open(saved) as pack:
            assert "t-12/own/work" in pack.getnames() and "t-12/lib/README" not in pack.getnames()

    def test_of_a_strange_name_is_left_out_alone(self, host: Host) -> None:
        result = host.finished(
            "git clone --quiet . '*'; echo x > x; git init --quiet 'a b'; echo y > 'a b/y'; echo z > z"
        )
        assert len(result["warnings"]) == 2
        assert host.forge_git("ls-tree", "-r", "--name-only", "task/12-fix").split() == ["README", "x", "z"]


class TestALargeRepository:
    """Large is what takes longer to check out than `spare_secs`; here everything does."""

    def deliver(self, host: Host, number: int, script: str = "echo new > new") -> Json:
        own = {"run": f"t-{number}.1", "task": f"t-{number}", "repository": host.repository(branch=f"task/{number}")}
        host.on_forge(script, limits={"spare_secs": 0.00001}, **own)
        result = host.result(f"t-{number}.1")
        assert result["pushed"], result
        return result

    def test_has_the_next_tasks_worktree_ready(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        (spare,) = host.home.glob("mirrors/*.spare")
        ready = (spare / "README").stat().st_ino
        push_by_somebody(host, "main", "theirs", start="main")
        result = self.deliver(host, 2, "cat README theirs; echo two > README")
        assert host.said(run="t-2.1") == "hello\ntheirs" and len(result["commits"]) == 1
        assert (host.home / "work" / "i1" / "t-2" / "README").stat().st_ino == ready, "the spare became the worktree"
        assert host.forge_git("show", "task/2:README") == "two" and host.forge_git("show", "task/2:theirs") == "theirs"
        assert host.forge_git("diff", "--name-only", "main", "task/2") == "README"

    def test_leaves_nothing_when_its_last_task_goes(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        wish = {"run": "t-1.1", "task": "t-1", "worktree": True, "repository": host.repository(branch="task/1")}
        host.ask("release", **wish)
        assert list(host.home.glob("mirrors/*.spare")) == [] and list(host.mirror().glob("worktrees/*")) == []

    def test_a_spare_that_was_left_half_made_is_made_again(self, host: Host) -> None:
        host.make_forge()
        self.deliver(host, 1)
        (spare,) = host.home.glob("mirrors/*.spare")
        (host.mirror() / "worktrees" / "spare" / "index").unlink()
        (spare / "README").write_text("half")
        self.deliver(host, 2, "cat README; echo two > two")
        assert host.said(run="t-2.1") == "hello\n" and host.forge_git("diff", "--name-only", "main", "task/2") == "two"


class TestWhatACliNotesElsewhere:
    """The last line of its session's file, as the template of Codex names it."""

    def start(self, host: Host, *lines: str, then: str = "") -> Path:
        file = {"named": '"id":"([a-f0-9-]+)"', "path": "{PLACE}/*/roll-{session}.jsonl", "line": '"count"'}
        (host.place / "day").mkdir()
        ours, other = (host.place / "day" / f"roll-{session}.jsonl" for session in ("a-1", "b-2"))
        ours.write_text("".join(line + "\n" for line in lines))
        other.write_text('{"timestamp": "9999", "count": "of another session"}\n')
        script = f"""echo '{{"id":"a-1"}}'; {then}"""
        host.start(agent={"argv": ["sh", "-c", script], "env": {"PLACE": str(host.place)}, "session_file": file})
        return ours

    def notes(self, host: Host, *lines: str) -> Json:
        self.start(host, *lines)
        return host.result()

    def is_told(self, host: Host, line: str) -> bool:
        return bool(host.poll()["noted"] == line)

    def test_is_told_while_it_works_and_what_was_told_last_if_its_supervisor_dies(self, host: Host) -> None:
        ours = self.start(host, then="sleep 30")
        for count in (1, 2):
            line = json.dumps({"timestamp": "9999", "count": count})
            with ours.open("a") as file:
                file.write(f'{line}\n{{"timestamp": "9999", "count": "half wri')
            assert eventually(partial(self.is_told, host, line)), "within seconds, whole lines alone"
            with ours.open("a") as file:
                file.write("\n")
        os.kill(host.state()["pid"], signal.SIGKILL)
        result = host.result()
        assert (result["end"], result["noted"]) == ("lost", line)

    def test_comes_along_with_the_result(self, host: Host) -> None:
        newest = '{"timestamp": "9999-01-01T00:00:00Z", "count": 2}'
        assert self.notes(host, '{"timestamp": "9998", "count": 1}', newest, '{"more": 1}')["noted"] == newest

    @pytest.mark.parametrize("line", ['{"timestamp": "2020-01-01T00:00:00Z", "count": 1}', '"count"', "\x00", "[1]"])
    def test_is_nothing_where_it_is_of_an_earlier_run_or_no_note(self, host: Host, line: str) -> None:
        result = self.notes(host, line)
        assert (result["end"], result["noted"]) == ("finished", None)


class TestTwentyTasksAtOnceOnOneHostAndRepository:
    """Each agent waits until all others work, so that twenty worktrees are there, and then twenty pushes, at once."""

    TOGETHER = "touch {all}/{number}; until [ $(ls {all} | wc -l) -ge 20 ]; do sleep 0.05; done; echo {number} > new"

    def all_of_them(self, host: Host) -> dict[str, Json]:
        (host.place / "all").mkdir()

        def start(number: int) -> None:
            own = {
                "run": f"n-{number}.1",
                "task": f"n-{number}",
                "repository": host.repository(branch=f"task/{number}"),
            }
            host.on_forge(self.TOGETHER.format(all=host.place / "all", number=number), limits=PATIENT, **own)

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(start, range(20)))
        names = [f"n-{number}.1" for number in range(20)]
        for name in names:
            eventually((host.folder(name) / "result.json").exists, 60)
        seen = host.ask("poll", runs=[{"run": name} for name in names])["runs"]
        return {name: seen[name]["result"] for name in names}

    def test_do_not_trip_over_each_other(self, host: Host) -> None:
        host.make_forge()
        results = self.all_of_them(host)
        assert {result["reason"] for result in results.values()} == {None}
        shown = (line.split() for line in host.forge_git("show-ref", "--heads").splitlines())
        heads = {name: sha for sha, name in shown if "task" in name}
        assert heads == {f"refs/heads/task/{number}": results[f"n-{number}.1"]["head"] for number in range(20)}

    def test_nor_over_git_that_packs_the_mirror_meanwhile(self, host: Host) -> None:
        host.finished("echo first > first")
        (host.mirror() / "objects" / "17").mkdir(exist_ok=True)
        for number in range(6000):  # by what lies in 17 git guesses how much there is to be packed
            content = b"blob %d\0%d" % (len(str(number)), number)
            name = hashlib.sha1(content).hexdigest()
            if name.startswith("17"):
                (host.mirror() / "objects" / "17" / name[2:]).write_bytes(zlib.compress(content))
        assert {result["reason"] for result in self.all_of_them(host).values()} == {None}
        eventually(lambda: list((host.mirror() / "objects" / "pack").glob("*.pack")), 20)
        assert git("--git-dir", str(host.mirror()), "fsck", "--no-dangling", "--connectivity-only") == ""


class TestCredentials:
    @pytest.mark.parametrize(
        ("asked", "answer"),
        [("Username for 'http://forge:3000': ", "fleet"), ("Password for 'http://fleet@forge:3000': ", "hunter2"),
         ("Password for 'http://fleet@evil': ", None), ("Password for 'http://forge:3000.evil': ", None),
         ("Username for 'http://evil/forge:3000': ", None), ('Username for "http://forge:3000"', "fleet"),
         ('Password for "http://fleet@forge:3000"', "hunter2"), ('Password for "http://forge:3000.evil"', None),
         ("Password for 'http:////forge:3000'@evil': ", None), ("Password for 'http://x@forge:3000'@evil': ", None),
         ("Username for 'http://forge:3000': @evil': ", None), ("Password for 'http://other@forge:3000': ", None),
         ("Password for 'https://fleet@forge:3000': ", "hunter2"), ("Password for 'ftp://fleet@forge:3000': ", None)],
    )  # fmt: skip
    def test_are_told_to_the_forge_alone(self, tmp_path: Path, asked: str, answer: str | None) -> None:
        (tmp_path / "askpass").write_bytes(ASKPASS)
        told = ask(tmp_path / "askpass", asked, "hunter2")()
        assert told.decode() == (f"{answer}\n" if answer else "")

    @pytest.mark.parametrize(
        "asked", ["Username for 'http://forge:3000': ", "Password for 'http://fleet@forge:3000': "]
    )
    def test_are_not_told_in_the_clear_to_a_forge_that_is_called_by_https(self, tmp_path: Path, asked: str) -> None:
        (tmp_path / "askpass").write_bytes(ASKPASS)
        assert ask(tmp_path / "askpass", asked, "hunter2", scheme="https")() == b""

    @pytest.mark.parametrize("user", ["", "%2F%2Fforge%27@", "fleet@"])
    def test_are_not_even_near_where_a_submodules_address_names_a_user(self, host: Host, user: str) -> None:
        host.make_forge()
        with Closed() as closed:
            modules = f'[submodule "lib"]\n\tpath = lib\n\turl = http://{user}127.0.0.1:{closed.port}/lib.git\n'
            seed = host.place / "seed"
            (seed / ".gitmodules").write_text(modules)
            git("-C", str(seed), "add", ".gitmodules")
            git("-C", str(seed), "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},lib")
            git("-C", str(seed), "commit", "--quiet", "-m", "with a module")
            git("-C", str(seed), "push", "--quiet", f"file://{host.forge}", "main")
            host.on_forge("true", credentials={"username": "fleet", "password": "hunter2"})
            said = host.result()["reason"]
        assert "terminal prompts disabled" in said, said
        assert ("askpass" in said) is (user == "")


class TestFlags:
    def wish(self, said: str) -> Json:
        flags = [{"since": "2.1.200", "argv": ["new"]}, {"argv": ["ever"]}]
        return {
            "argv": ["sh", "-c", 'echo "$@"', "sh", "{flags}", "end"],
            "flags": flags,
            "version": ["sh", "-c", said],
        }

    @pytest.mark.parametrize(
        ("said", "words"), [("echo 2.1.330 x", "new ever end"), ("echo 2.1.197", "ever end"), ("exit 1", "ever end")]
    )
    def test_are_those_of_the_installed_version(self, host: Host, said: str, words: str) -> None:
        host.start(agent=self.wish(said))
        host.result()
        assert (host.folder() / "stdout.log").read_text().strip() == words

    def test_a_program_of_ones_own_is_found_where_people_keep_theirs(self, host: Host) -> None:
        own = host.user_home / ".local" / "bin"
        own.mkdir(parents=True)
        (own / "mytool").write_text("#!/bin/sh\necho mine\n")
        (own / "mytool").chmod(0o755)
        host.start(agent={"argv": ["mytool"]})
        assert host.result()["end"] == "finished"

    def test_a_program_that_only_the_login_shell_finds_is_found(self, host: Host) -> None:
        place = host.user_home / "node" / "v22" / "bin"
        place.mkdir(parents=True)
        (place / "mytool").write_text("#!/bin/sh\necho mine\n")
        (place / "mytool").chmod(0o755)
        (host.user_home / ".profile").write_text(f'PATH="{place}:$PATH"\n')
        _, answer = host.call("start", host.wish(agent={"argv": ["mytool"]}), env={"SHELL": "/bin/sh"})
        assert answer["state"] == "started" and host.result()["end"] == "finished"
