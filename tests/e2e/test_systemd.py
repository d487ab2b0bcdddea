# SPDX-License-Identifier: BSD-3-Clause
"""The units: what systemd thinks of them, and the command lines in them, run as they stand there."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess

import nbd

import harness
from control import Control, content_of
from devices import end_process, need_root
from harness import K, M, Skip, case

SOURCE = os.path.join(harness.HERE, "../../systemd")
HELPER = os.path.join(SOURCE, "logcache-nbd")
UNITS = ("logcache@.service", "logcache-nbd@.service")


def unit(name):
    """As it is built."""
    path = os.path.join(os.path.dirname(harness.MODULE), "systemd", name)
    if not os.path.exists(path):
        raise Skip(f"{path} is not built")
    with open(path, encoding="utf-8") as f:
        return f.read()


def settings_of(text, key):
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def with_helper(text):
    """It is not installed yet."""
    return re.sub(r"^(Exec\w+=\+?)\S*/logcache-nbd ", rf"\g<1>{os.path.abspath(HELPER)} ", text, flags=re.MULTILINE)


@case()
def verify(env):
    """systemd has nothing to say about the two, put together."""
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not installed")
    for name in UNITS:
        text = with_helper(unit(name))
        assert not re.search(r"@\w+@", text), f"{name} is not configured"
        with open(env.path(name.replace("@", "@main")), "w", encoding="utf-8") as f:
            f.write(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(env.path(n.replace("@", "@main")) for n in UNITS)],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": env.folder + ":"})
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "logcache" in line]
    assert done.returncode == 0 and not ours, done


def expand(line, instance, runtime, environment):
    """The words of a command line, as systemd.service(5) says."""
    words = []
    for word in line.replace("%i", instance).replace("%t", runtime).split():
        if re.fullmatch(r"\$\w+", word):
            words += shlex.split(environment[word[1:]])
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda m: environment[m[1]], word))
    return words


def environment_of(text, **conf):
    """Defaults of the unit, below those of the file."""
    given = dict(word.split("=", 1) for line in settings_of(text, "Environment") for word in shlex.split(line))
    return {**given, **conf}


class Manager:
    """The socket at which a service manager listens."""

    def __init__(self, env):
        self.path = env.path("notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(60)
        env.at_end(self.socket.close)

    def wait(self, line):
        seen = []
        while line not in seen:
            seen += self.socket.recv(4096).decode().split("\n")
        return seen


@case()
def the_server(env):
    """Recovery, ready, serving, drained: the line of the unit, and what it tells systemd."""
    need_root()  # --swap locks memory
    text = unit(UNITS[0])
    backing = env.make_file("slow disk", 8 * M)
    environment = environment_of(
        text, PLUGIN=harness.MODULE, NBD="/dev/nbd0",
        PARAMETERS=f"cache={env.path('cache')} cache-size=8M backing='{backing}' on-exit=drain writeback=off")
    command = expand(settings_of(text, "ExecStart")[0], "main", env.path("run"), environment)
    assert os.path.isabs(command[0]) and f"control={env.path('run')}/logcache/main/control.sock" in command
    os.makedirs(env.path("run/logcache/main"))
    manager = Manager(env)
    with open(env.path("log"), "wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  env={**os.environ, "NOTIFY_SOCKET": manager.path})
    env.at_end(lambda: server.poll() is None and end_process(server))
    assert "STATUS=opening" in manager.wait("READY=1")
    control = Control(env.path("run/logcache/main/control.sock"))
    h = nbd.NBD()
    h.connect_unix(env.path("run/logcache/main/nbd.sock"))
    h.pwrite(b"s" * 64 * K, 0)
    h.shutdown()
    assert control.status()["cache"]["dirty_blocks"] == 16
    assert control.settings()["client-timeout"] == int(environment["NBD_TIMEOUT"]) == 600
    server.send_signal(signal.SIGTERM)
    manager.wait("STATUS=writing everything back")
    assert server.wait(30) == 0
    assert content_of(backing)[:64 * K] == b"s" * 64 * K
    with open(env.path("log"), encoding="utf-8") as f:
        assert "cannot tell systemd" not in f.read()


@case()
def nobody_listens(env):
    """That systemd does not answer is no reason not to serve."""
    for path in (env.path("absent"), "", "relative", "@" + env.path("abstract")):
        os.environ["NOTIFY_SOCKET"] = path
        try:
            server = env.serve(backing=env.make_file("backing", 1 * M))
        finally:
            del os.environ["NOTIFY_SOCKET"]
        server.stop()
        assert ("cannot tell systemd" in server.log()) == (path[:1] in ("/", "@")), server.log()


NBD_CLIENT = """#!/bin/sh
# Devices that are attached are files in $STATE; attaching $BROKEN fails.
echo "$*" >>"$STATE/calls"
case $1 in
-unix) [ "$3" != "$BROKEN" ] && touch "$STATE/${3##*/}" ;;
-d) [ "$2" != "$STUCK" ] && rm "$STATE/${2##*/}" ;;
-c) [ -e "$STATE/${2##*/}" ] ;;
esac
"""

# Reading $SILENT hangs until it was attached for the ${ATTEMPT}th time.
DD = """#!/bin/sh
case " $* " in
*" if=$SILENT "*) [ "$(grep -c -e "^-unix .* $SILENT " "$STATE/calls")" -ge "$ATTEMPT" ] || exec /bin/sleep 9 ;;
esac
"""

# Impatient.
TIMEOUT = """#!/bin/sh
shift
exec /usr/bin/timeout 0.5 "$@"
"""

# The unit $ACTIVE is active.
SYSTEMCTL = """#!/bin/sh
[ "$1" = is-active ] || exit 2
case " $* " in
*" $ACTIVE "*) exit 0 ;;
esac
exit 3
"""

# Nobody waits here; for the third time the disk comes, if $LATE is one.
SLEEP = """#!/bin/sh
echo >>"$STATE/slept"
[ "$(wc -l <"$STATE/slept")" -lt 3 ] || [ -z "$LATE" ] || touch "$LATE"
"""


def stubs(env, **programs):
    """What the helper finds in place of real programs: an nbd-client that only notes what it was asked for (there may be no module
    nbd here), and these. The environment for it."""
    os.mkdir(env.path("bin"))
    os.mkdir(env.path("state"))
    for name, content in {"nbd-client": NBD_CLIENT, "modprobe": "#!/bin/sh\n", **programs}.items():
        with open(env.path(f"bin/{name}"), "w", encoding="utf-8") as f:
            f.write(content)
        os.chmod(env.path(f"bin/{name}"), 0o755)
    return {**os.environ, "STATE": env.path("state"), "PATH": env.path("bin") + ":" + os.environ["PATH"]}


@case()
def the_devices(env):
    """What the helper does to the devices when they are started and stopped."""
    text = unit(UNITS[1])
    assert settings_of(text, "BindsTo") == settings_of(text, "After") == ["logcache@%i.service"]
    base = stubs(env, dd=DD, timeout=TIMEOUT, sleep="#!/bin/sh\n")

    def run(key, expect=0, said=None, **more):
        """The calls of nbd-client but for questions, and what is attached then."""
        environment = environment_of(text, NBD="/dev/nbd0 '/dev/nbd1=vm 1' /dev/nbd2=x=y")
        command = expand(settings_of(text, key)[0], "main", "/run", environment)
        command[0] = HELPER
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**base, **environment, **more})
        assert done.returncode == expect, done
        assert ("logcache-nbd: " in done.stderr) == (expect != 0 or said is not None), done
        assert not said or said in done.stderr, done
        calls = []
        if os.path.exists(env.path("state/calls")):
            with open(env.path("state/calls"), encoding="utf-8") as f:
                calls = [line for line in f.read().splitlines() if not line.startswith("-c ")]
            os.unlink(env.path("state/calls"))
        return calls, sorted(os.listdir(env.path("state")))

    rest = "-b 4096 -C 4 -timeout 600"
    calls = [f"-unix /run/logcache/main/nbd.sock {what}" for what in
             (f"/dev/nbd0 {rest}", f"/dev/nbd1 {rest} -name vm 1", f"/dev/nbd2 {rest} -name x=y")]
    assert run("ExecStart") == (calls, ["nbd0", "nbd1", "nbd2"])
    assert run("ExecStart", expect=1)[0] == [], "a device in use was touched"
    assert run("ExecStop", expect=1, STUCK="/dev/nbd1") == (
        ["-d /dev/nbd0", "-d /dev/nbd1", "-d /dev/nbd2"], ["nbd1"])
    assert run("ExecStop") == (["-d /dev/nbd1"], [])
    assert run("ExecStop") == ([], [])
    assert run("ExecStart", expect=1, BROKEN="/dev/nbd2") == (calls + ["-d /dev/nbd0", "-d /dev/nbd1"], [])
    # A device that does not answer is attached again, but not for ever
    again = ["-d /dev/nbd1", calls[1]]
    assert run("ExecStart", said="/dev/nbd1 does not answer, attempt 2", SILENT="/dev/nbd1", ATTEMPT="3") == (
        calls[:2] + 2 * again + calls[2:], ["nbd0", "nbd1", "nbd2"])
    run("ExecStop")
    small = [call.replace("-b 4096", "-b 512") for call in calls]
    assert run("ExecStart", NBD_BLOCK_SIZE="512")[0] == small
    run("ExecStop")
    assert run("ExecStart", expect=1, said="attempt 5", SILENT="/dev/nbd1", ATTEMPT="6") == (
        calls[:2] + 4 * again + ["-d /dev/nbd1", "-d /dev/nbd0"], [])
    if not os.path.exists("/sys/module/nbd"):
        with open(env.path("bin/modprobe"), "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexit 1\n")
        assert run("ExecStart", expect=1, said="this kernel has no module nbd") == ([], [])
    done = subprocess.run([HELPER, "--help"], capture_output=True, text=True, check=True)
    with open(os.path.join(harness.HERE, "../../docs/logcache-nbd.pod"), encoding="utf-8") as f:
        synopsis = re.search(r"=head1 SYNOPSIS\n(.*?)=head1", f.read(), re.DOTALL)[1]
    for line in synopsis.split("\n"):
        assert line.strip() in done.stdout and not done.stderr, (line, done)
    for wrong in ([], ["attach"], ["attach", "/run/s"], ["detach"], ["abandon"], ["both", "a", "b"]):
        done = subprocess.run([HELPER, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "usage" in done.stderr, (wrong, done)


@case()
def before_and_after_the_server(env):
    """The helper in the server's unit: it waits for a disk that comes late, and detaches the devices of a server that died."""
    text = unit(UNITS[0])
    late = f"/dev/shm/logcache-test-{os.getpid()}"
    env.at_end(lambda: os.path.exists(late) and os.unlink(late))
    base = stubs(env, systemctl=SYSTEMCTL, sleep=SLEEP)

    def run(key, **more):
        """What it said, how often it slept, and which devices are attached then."""
        environment = environment_of(text, NBD="/dev/nbd0 /dev/nbd1=b",
                                     PARAMETERS=f"cache={env.path('absent')} volume=a backing={late} backing=nbd://host/x")
        command = expand(settings_of(text, key)[0].lstrip("+"), "main", "/run", environment)
        done = subprocess.run([HELPER, *command[1:]], capture_output=True, text=True, check=True,
                              env={**base, **environment, "ACTIVE": "", "LATE": "", **more})
        slept = 0
        if os.path.exists(env.path("state/slept")):
            with open(env.path("state/slept"), encoding="utf-8") as f:
                slept = len(f.readlines())
            os.unlink(env.path("state/slept"))
        return done.stderr, slept, sorted(d for d in os.listdir(env.path("state")) if d.startswith("nbd"))

    waiting = f"logcache-nbd: waiting for {late}\n"
    assert run("ExecStartPre") == (waiting, 60, []), "a minute, then the server says what is missing"
    assert run("ExecStartPre", LATE=late) == (waiting, 3, [])
    assert run("ExecStartPre") == ("", 0, [])
    for device in ("nbd0", "nbd1"):
        with open(env.path(f"state/{device}"), "w", encoding="utf-8"):
            pass
    # Stopped in order its devices went first, and those that are there are somebody else's
    assert run("ExecStopPost", ACTIVE="logcache-nbd@other.service") == ("", 0, ["nbd0", "nbd1"])
    assert run("ExecStopPost", ACTIVE="logcache-nbd@main.service") == ("", 0, [])
