"""Git on a host does what the supervisor says, whatever the agent did to it."""

from __future__ import annotations

from tests.workers.supervisor.host import (
    Host,
    git,
)


def test_work_on_another_branch_is_delivered_to_the_tasks_branch(host: Host) -> None:
    first = host.finish("git checkout -q -b elsewhere; echo one > file")
    assert host.forge_git("rev-parse", "task/12-fix") == first["head"]
    assert host.finish("git symbolic-ref HEAD", fence=2)["base"] == first["head"]
    assert host.log(run="t-12.2") == "refs/heads/task/12-fix\n"


def test_hooks_and_settings_of_the_agent_have_no_effect_on_the_push(host: Host) -> None:
    evil = host.place / "evil.git"
    git("init", "--quiet", "--bare", str(evil))
    spoil = f"""
        hooks=$(git rev-parse --git-common-dir)/hooks; mkdir -p $hooks {host.place}/hooks
        for hook in $hooks/pre-push {host.place}/hooks/pre-push $hooks/pre-commit $hooks/reference-transaction; do
            printf '#!/bin/sh\\ntouch {host.place}/owned\\n' > $hook; chmod +x $hook; done
        git config url.file://{evil}.insteadOf file://{host.forge}
        git config core.hooksPath {host.place}/hooks
        git config credential.helper '!touch {host.place}/owned; :'
        git config core.fsmonitor 'touch {host.place}/owned'
        git config extensions.worktreeConfig true
        git config --worktree url.file://{evil}.pushInsteadOf file://{host.forge}
        git config --global url.file://{evil}.insteadOf file://{host.forge}
        mkdir {host.place}/common; cp -r "$(git rev-parse --git-common-dir)/." {host.place}/common
        git config --file {host.place}/common/config url.file://{evil}.insteadOf file://{host.forge}
        echo {host.place}/common > "$(git rev-parse --git-common-dir)/commondir"
        echo one > file
    """
    host.start_delivery("unset GIT_CONFIG_GLOBAL;" + spoil)
    result = host.result()
    assert result["pushed"], result
    assert host.forge_git("rev-parse", "task/12-fix") == result["head"]
    assert not (host.place / "owned").exists()
    assert git("--git-dir", str(evil), "branch", "--list") == ""
