# SPDX-License-Identifier: BSD-3-Clause
"""Completion of logcachectl's command line in bash: the function is called as bash calls it."""

import os
import re
import subprocess

import harness
from control import serve
from harness import M, case
from test_ctl import ctl, program

SCRIPT = os.path.join(harness.HERE, "../../src/ctl/logcachectl.bash")

# What bash makes of a line: it splits words at these besides blanks.
BREAKS = " \t\n\"'><=;|&(:"


def shell_words(line, breaks):
    """COMP_WORDS of a line whose end is where the cursor is."""
    words = []
    for word in line.split(" "):
        split = "".join(c for c in "=:" if c in breaks)
        parts = [p for p in re.split(f"([{split}]+)", word) if p] if split else [word]
        words += parts or [""]
    return words


def complete(env, line, breaks=BREAKS, socket=""):
    """What is offered behind LINE ("logcachectl ..."): as bash would show it, in its order."""
    words = shell_words(line.replace("logcachectl", program(), 1), breaks)
    done = subprocess.run(
        ["bash", "--norc", "-c", 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _logcachectl; '
         r'for reply in "${COMPREPLY[@]}"; do printf "%s\n" "$reply"; done', "bash", SCRIPT, *words],
        check=False, capture_output=True, text=True, timeout=30, cwd=env.folder,
        env={**os.environ, "COMP_WORDBREAKS": breaks, "LOGCACHE_SOCKET": socket})
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.splitlines()


def commands():
    """{name: options} of --help; drain is there twice."""
    known = {}
    for name, arguments in re.findall(r"^  ([a-z-]+)(?: (.*))?$", ctl(None, "--help"), re.MULTILINE):
        known.setdefault(name, set()).update(re.findall(r"--[a-z-]+", arguments))
    return known


@case()
def knows_all_commands_and_options(env):
    known = commands()
    offered = complete(env, "logcachectl ")
    assert set(known) | {"-s", "--help", "--version"} == set(offered), offered
    assert complete(env, "logcachectl dr") == ["drain"]
    assert complete(env, f"logcachectl -s {env.path('x')} det") == ["detach"]
    for name, options in known.items():
        offered = {o.rstrip("=") for o in complete(env, f"logcachectl {name} --")}
        if name == "drain":
            offered |= {o for o in complete(env, "logcachectl drain --offline --") if o.startswith("--")}
        assert offered == options, (name, offered, options)
    assert complete(env, "logcachectl status --j") == ["--json"]
    assert complete(env, "logcachectl nothing ") == []


@case()
def values(env):
    for breaks in (BREAKS, BREAKS.replace("=", "").replace(":", "")):
        def what(line, breaks=breaks):
            prefix = "" if "=" in breaks else line.split(" ")[-1].split("=")[0] + "="
            return [reply.removeprefix(prefix) for reply in complete(env, line, breaks)]

        assert what("logcachectl attach --format=") == ["auto", "no", "force"]
        assert what("logcachectl attach --format=f") == ["force"]
        assert what("logcachectl format --segment-size=1") == ["16K", "128K", "1M"]
        assert what("logcachectl set dirty-low=20 writeback=o") == ["on", "off"]
        assert what("logcachectl set --persist on-exit=") == ["keep", "drain", "default"]


@case()
def settings(env):
    """Of the server that runs, and else of this version."""
    server, control, _ = serve(env)
    keys = set(control.settings())
    asked = f"logcachectl -s {control.path}"
    assert set(complete(env, f"{asked} get ")) == keys | {"-s"}
    assert set(complete(env, f"{asked} set ")) == {f"{key}=" for key in keys} | {"-s", "--persist"}
    assert complete(env, f"{asked} set dirty-l") == ["dirty-low="]
    assert complete(env, "logcachectl get dirty-h", socket=control.path) == ["dirty-high"]
    assert complete(env, f"{asked} get dirty-low dirty-h") == []
    assert set(complete(env, "logcachectl get ")) == keys | {"-s"}, "what is built in is not up to date"
    server.kill()
    assert set(complete(env, f"{asked} get ")) == keys | {"-s"}


@case()
def files_and_volumes(env):
    with open(env.path("cache a:b"), "wb"):
        pass
    os.mkdir(env.path("cafe"))
    for line in ("check", "dump", "repair", "format", "attach", "forget", "-s", "status -s"):
        offered = complete(env, f"logcachectl {line} ca")
        assert sorted(offered) == ["cache a:b", "cafe"], (line, offered)
    assert sorted(complete(env, "logcachectl drain --offline cache=ca")) == ["cache a:b", "cafe"]
    assert complete(env, "logcachectl drain --offline cache=c volume=x backing=caf") == ["cafe"]
    assert complete(env, "logcachectl drain --offline back") == ["backing="]
    assert "backing=" not in complete(env, "logcachectl drain ")
    assert complete(env, "logcachectl check cafe caf") == []
    with open(env.path("x:y"), "wb"):
        pass
    assert complete(env, "logcachectl check x:") == ["y"]

    names = ["vm1", "vm 2", "v=3"]
    server = env.serve(cache=env.path("ssd"), cache_size=8 * M,
                       volumes=[(name, env.make_file(f"b{i}", 1 * M)) for i, name in enumerate(["", *names])])
    server.stop()
    assert sorted(complete(env, "logcachectl forget ssd v")) == ["v=3", "vm1", r"vm\ 2"]
    assert complete(env, "logcachectl drain --offline cache=ssd volume=vm1") == ["vm1"]


@case()
def loads(env):
    """In a shell that has nothing of the package bash-completion."""
    done = subprocess.run(["bash", "--norc", "-c", 'source "$1" && complete -p logcachectl', "bash", SCRIPT],
                          capture_output=True, text=True, check=False)
    assert done.stdout == "complete -F _logcachectl logcachectl\n" and not done.stderr, done
