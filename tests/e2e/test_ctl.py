# SPDX-License-Identifier: BSD-3-Clause
"""logcachectl with a running server: what it prints, and its exit status."""

import json
import os
import re
import shutil
import subprocess
import time

import harness
from control import Load, content_of, serve
from harness import K, M, Skip, case

OK, FAILED, USAGE = 0, 1, 2


def program():
    path = os.path.join(os.path.dirname(harness.MODULE), "logcachectl")
    if not os.path.exists(path):
        raise Skip(f"{path} is not built")
    return path


def ctl(control, *args, expect=OK, environment=None):
    """What it prints, on both outputs."""
    before = ("-s", control.path) if control else ()
    done = subprocess.run([program(), *before, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
                          env={**os.environ, **(environment or {})})
    assert done.returncode == expect, f"{args} exited with {done.returncode}: {done.stdout}"
    assert expect == OK or re.search("^logcachectl: ", done.stdout, re.MULTILINE), done.stdout
    return done.stdout


def has(text, *words):
    for word in words:
        assert re.search(word, text), f"'{word}' is not in:\n{text}"


@case()
def status(env):
    server, control, backing = serve(env, writeback="off")
    h = server.connect()
    h.pwrite(b"s" * 1 * M, 0)
    h.pread(4096, 0)
    h.flush()
    text = ctl(control, "status")
    has(text, r"server +logcache \d", env.path("cache") + ", attached", r"segments +15 of 1.0 MiB: \d+ dirty",
        r"epoch +2, begun after a clean shutdown", r"2 dirty \(1 open\)", r"log +record 2, durable 2",
        r"flushes +1 of clients", r"ring +head 2, .*tail 0", "#*H", r"read +1 ", r"write +1 ", "p99.9", re.escape(backing),
        r"\(default\)", r"hits +reads 100.0 %")
    long = [line for line in text.splitlines() if env.folder not in line and len(line) > 80]
    assert not long, long
    st = json.loads(ctl(control, "status", "--json"))
    assert st["clients"]["writes"] == 1 and st["state"] == "attached"
    # The other ways to name the server.
    has(ctl(None, "status", environment={"LOGCACHE_SOCKET": control.path}), "attached")
    has(ctl(None, "status", "-s", control.path), "attached")
    ctl(control, "reset-stats")
    assert json.loads(ctl(control, "status", "--json"))["clients"]["writes"] == 0
    ctl(control, "flush")
    h.shutdown()
    server.stop()


@case()
def settings(env):
    # Numbers are decimal here and there: 010 was 8 on the command line once.
    server, control, _ = serve(env, dirty_low="010", stall_timeout="030")
    text = ctl(control, "get")
    has(text, r"dirty-low +10 % +10 +0\.\.100", r"writeback +on +on +on, off", r"on-exit +keep +keep",
        r"writeback-batch +auto bytes +auto +auto, 1M\.\.16T")
    assert ctl(control, "get", "dirty-low") == "10\n" and ctl(control, "get", "stall-timeout") == "30\n"
    assert ctl(control, "get", "writeback") == "on\n"
    assert ctl(control, "set", "dirty-low=20", "writeback=off", "writeback-batch=4M", "on-exit=drain") == ""
    now = control.settings()
    assert (now["dirty-low"], now["writeback"], now["writeback-batch"], now["on-exit"]) == \
        (20, False, 4 * M, "drain")
    assert ctl(control, "get", "writeback-batch") == "4M\n"
    ctl(control, "set", "writeback-batch=auto", "dirty-low=default")
    assert ctl(control, "get", "writeback-batch") == "auto\n" and ctl(control, "get", "dirty-low") == "10\n"
    ctl(control, "set", "--persist", "stall-timeout=9")
    ctl(control, "set", "stall-timeout=8", "writeback=true")
    has(ctl(control, "get"), r"stall-timeout +8 s +30 +0\.\.86400 +9  ", r"writeback +on ", r"dirty-low .*0\.\.100 {21}write")
    ctl(control, "set", "writeback=false")

    before = control.settings()
    has(ctl(control, "get", "nothing", expect=FAILED), "no such setting")
    has(ctl(control, "set", "dirty-low=101", expect=FAILED), "dirty-low", "0 to 100")
    for bad in ("dirty-low=0x10", "stall-timeout=1K", "flush-interval=1s"):
        has(ctl(control, "set", bad, expect=FAILED), bad.split("=", maxsplit=1)[0], "whole number")
    has(ctl(control, "set", "dirty-low=5", "nothing=1", expect=FAILED), "nothing: there is no such setting")
    has(ctl(control, "set", "writeback=maybe", expect=FAILED), "writeback: must be on or off")
    has(ctl(control, "set", "client-timeout=0", expect=FAILED), "whole number of seconds from 1 to 86400$")
    for bad in ((), ("dirty-low",), ("=5",), ("dirty-low=1", "dirty-low=2"), ("--persits", "dirty-low=1")):
        ctl(control, "set", *bad, expect=USAGE)
    ctl(control, "get", "a", "b", expect=USAGE)
    assert control.settings() == before
    server.stop()


@case()
def jobs(env):
    """drain, detach and attach, with and without waiting, while clients go on."""
    server, control, backing = serve(env, size=24 * M, writeback="off")
    load = Load(env, server, backing, nr=2)
    time.sleep(0.3)
    has(ctl(control, "drain", "--wait"), "drain done after")
    has(ctl(control, "drain"), r"drain has begun: job \d")
    control.wait(control.get("/v1/jobs")["jobs"][0])
    has(ctl(control, "detach", "--wait"), r"detach done after \d+ s, in which writers waited for [\d.]+ [mu]?s$")
    assert control.status()["state"] == "none"
    has(ctl(control, "status"), "none: volumes are served")
    has(ctl(control, "drain", expect=FAILED), "there is no cache")
    has(ctl(control, "detach", "--wait", expect=FAILED), "there is no cache")
    has(ctl(control, "attach", backing, "--wait", expect=FAILED), "attach failed", "same file")
    has(ctl(control, "attach", "/absent", "--wait", expect=FAILED), "/absent: does not exist: check the path")
    other = env.make_file("other", 16 * M, b"other")
    has(ctl(control, "attach", other, "--wait", expect=FAILED), "not blank", "--format=force")
    env.make_file("cache2", 16 * M)
    done = subprocess.run([program(), "-s", control.path, "attach", "cache2", "--wait", "--segment-size=64K",
                           "--format=auto"], cwd=env.folder, capture_output=True, text=True, check=False)
    assert done.returncode == OK and "attach done" in done.stdout, done
    assert control.status()["cache"]["path"] == env.path("cache2")
    assert control.status()["cache"]["segment_bytes"] == 64 * K
    has(ctl(control, "attach", env.path("cache"), expect=FAILED), "detach it first")
    content, _, _ = load.stop()
    ctl(control, "drain", "--wait")
    assert content_of(backing) == content
    for bad in (("attach",), ("attach", "a", "b"), ("attach", "a", "--nothing"), ("drain", "now"),
                ("detach", "--now"), ("flush", "it"), ("status", "--xml"),
                ("attach", "a", "--segment-size=x")):
        ctl(control, *bad, expect=USAGE)
    server.stop()


@case()
def no_server(env):
    for command in (("status",), ("get",), ("set", "dirty-low=5"), ("flush",), ("drain", "--wait"),
                    ("reset-stats",), ("detach",)):
        has(ctl(None, *command, "-s", env.path("absent"), expect=FAILED), "no server answers at .*absent")
        has(ctl(None, *command, expect=USAGE, environment={"LOGCACHE_SOCKET": ""}), "LOGCACHE_SOCKET")
    server, control, _ = serve(env)
    server.kill()
    has(ctl(control, "status", expect=FAILED), "no server answers")


@case()
def a_mistaken_socket(env):
    """The socket of the NBD side is no control socket: a message, and no hanging."""
    server, _, _ = serve(env)
    text = ctl(None, "status", "-s", server.socket, expect=FAILED)
    has(text, re.escape(server.socket))
    server.stop()


def tmux(env, *args):
    return subprocess.run(["tmux", "-S", env.path("tmux"), "-f", "/dev/null", *args], check=True,
                          capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout


def screen(env, *words, absent=(), timeout_s=15):
    """What the terminal shows, once all the words are there."""
    end = time.monotonic() + timeout_s
    while True:
        text = tmux(env, "capture-pane", "-p")
        if all(re.search(word, text) for word in words) and not any(re.search(w, text) for w in absent):
            return text
        assert time.monotonic() < end, f"not all of {words} are on the screen:\n{text}"
        time.sleep(0.1)


@case()
def top(env):
    """At 80x24, larger and smaller; without its server, and with it again; q ends it."""
    if not shutil.which("tmux"):
        raise Skip("tmux is not installed")
    server, control, backing = serve(env, size=24 * M, cache_size=24 * M, segment_size="64K",
                                     writeback="off")
    text = ctl(control, "top", expect=FAILED)
    has(text, "not a terminal")
    ctl(control, "top", "--interval=0", expect=USAGE)
    load = Load(env, server, backing)
    tmux(env, "new-session", "-d", "-x", "80", "-y", "24",
         f"{program()} -s {control.path} top --interval=0.3; echo status=$?; sleep 60")
    env.at_end(lambda: tmux(env, "kill-server"))
    text = screen(env, r"logcache \d", "q quits", "attached", r"dirty +\[#*\.*\] +[\d.]+ %", r"filled +\[",
                  "write-back", "IOPS", r"p99\.9", r"read +[1-9][\d.]*k? .*iB", r"write +[1-9].* us",
                  r"flush", r"hits +reads [\d.]+ %", r"ring +head \d+, tail \d+", "#+H", absent=("ERROR",))
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    tmux(env, "resize-window", "-x", "140", "-y", "40")
    screen(env, r"[-#.T]{128}")
    tmux(env, "resize-window", "-x", "30", "-y", "8")
    time.sleep(0.7)
    tmux(env, "resize-window", "-x", "80", "-y", "24")
    screen(env, r"ring +head", "q quits")
    load.check()
    control.change(dirty_low=0, writeback=True)
    load.stop()
    control.do("drain")
    screen(env, r"dirty +\[\.*\] +0.0 %", r"H", absent=("#H",))
    server.kill()
    screen(env, "no server answers")
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"))
    screen(env, r"up \d s", "attached", absent=("no server",))
    control.do("detach")
    screen(env, "cache +none")
    tmux(env, "send-keys", "q")
    screen(env, "status=0")
    server.stop()


@case()
def usage(env):
    text = ctl(None, "--help")
    has(text, r"-s SOCKET", *(rf"\n  {name}\b" for name in
                              ("status", "top", "watch", "get", "set", "flush", "drain", "attach",
                               "detach", "reset-stats")))
    assert not re.search(r" $|^.{90}", text, re.MULTILINE), text
    ctl(None, "nothing", expect=USAGE)
    ctl(None, "-s", env.path("x"), "nothing", expect=USAGE)
    # One line for each, and it names what is wrong
    for args, says in ((("dump", "--foo"), "dump: there is no option --foo;"),
                       (("check", "-x", "a"), "check: there is no option -x;"),
                       (("check", "--progress=3", "a"), "check: --progress=3: takes no value"),
                       (("format", "a", "--label"), "format: --label: a value is missing"),
                       (("-s",), "-s: a SOCKET is missing"), (("get", "-s"), "-s: a SOCKET is missing"),
                       (("-s", "x"), "-s x: a COMMAND is missing"),
                       (("drain", "cache=c", "backing=a"), "drain: cache=c: .* give --offline")):
        text = ctl(None, *args, expect=USAGE)
        assert text.count("\n") == 1, text
        has(text, f"^logcachectl: {says}")


def examples():
    """The commands in the manual page's EXAMPLES, those for a running server first."""
    with open(os.path.join(harness.HERE, "../../docs/logcachectl.pod"), encoding="utf-8") as f:
        text = re.search(r"^=head1 EXAMPLES\n(.*?)^=head1 ", f.read(), re.MULTILINE | re.DOTALL)[1]
    lines = re.findall(r"^ (.+)$", text, re.MULTILINE)
    offline = [line for line in lines if re.search(r"\b(dd|dump|check|repair)\b|--offline", line)]
    assert len(offline) >= 6 and len(lines) - len(offline) >= 6, lines
    return [line for line in lines if line not in offline], offline


@case()
def the_manual_works(env):
    """Its examples, as they stand there, with files in place of devices."""
    server, control, backing = serve(env)
    env.make_file("cache2", 16 * M)
    os.makedirs(env.path("backup"))
    places = {"/run/logcache.ctl": control.path, "/dev/sda": backing, "/dev/sdb": env.path("cache"),
              "/dev/sdc": env.path("cache2"), "/backup": env.path("backup")}
    path = os.path.dirname(program()) + ":" + os.environ["PATH"]

    def run(line, exports=()):
        for device, file in places.items():
            line = line.replace(device, file)
        done = subprocess.run(["bash", "-e", "-c", "; ".join([*exports, line])], capture_output=True, text=True,
                              timeout=60, check=False, env={**os.environ, "PATH": path})
        assert done.returncode == 0, (line, done)
        return done.stdout

    online, offline = examples()
    said = []
    for line in online:
        if line.startswith("export "):
            said.append(line.replace("/run/logcache.ctl", control.path))
        elif " jq " in line and not shutil.which("jq"):
            continue
        elif "top" not in line.split():  # that is a screen: see top()
            run(line, said)
    assert control.status()["cache"]["path"] == env.path("cache2") and control.settings()["writeback"] is True
    h = server.connect()
    h.pwrite(b"m" * 64 * K, 0)
    h.shutdown()
    server.stop()
    places["/dev/sdb"] = env.path("cache2")
    for line in offline:
        if " repair " in line:
            continue  # there is nothing to repair: that is tested where there is
        run(line)
    assert content_of(backing)[:64 * K] == b"m" * 64 * K
    assert os.path.getsize(env.path("backup/sdb.img")) == 16 * M
