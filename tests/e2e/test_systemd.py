# SPDX-License-Identifier: BSD-3-Clause
"""The units: what systemd thinks of them, and the command lines in them, run as they stand there."""

import glob
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


@case()
def the_devices(env):
    """The helper, with an nbd-client that only notes what it was asked for: there may be no module nbd here."""
    text = unit(UNITS[1])
    assert settings_of(text, "BindsTo") == settings_of(text, "After") == ["logcache@%i.service"]
    os.mkdir(env.path("bin"))
    os.mkdir(env.path("state"))
    for name, content in (("nbd-client", NBD_CLIENT), ("modprobe", "#!/bin/sh\n"), ("dd", DD),
                          ("timeout", TIMEOUT), ("sleep", "#!/bin/sh\n")):
        with open(env.path(f"bin/{name}"), "w", encoding="utf-8") as f:
            f.write(content)
        os.chmod(env.path(f"bin/{name}"), 0o755)

    def run(key, expect=0, said=None, **more):
        """The calls of nbd-client but for questions, and what is attached then."""
        environment = environment_of(text, NBD="/dev/nbd0 '/dev/nbd1=vm 1' /dev/nbd2=x=y")
        command = expand(settings_of(text, key)[0], "main", "/run", environment)
        command[0] = HELPER
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**os.environ, **environment, "STATE": env.path("state"),
                 "PATH": env.path("bin") + ":" + os.environ["PATH"], **more})
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
    for wrong in ([], ["attach"], ["attach", "/run/s"], ["detach"], ["abandon"], ["both", "a", "b"]):
        done = subprocess.run([HELPER, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "usage" in done.stderr, (wrong, done)


# Tells what it does to $CALLS, and whether the server lives.
TELLING_CLIENT = """#!/bin/sh
device=${3##*/}
[ "$1" = -unix ] || device=${2##*/}
if kill -0 "$(cat "$STATE/pid")" 2>/dev/null; then server=alive; else server=dead; fi
case $1 in
-unix) echo "attach $device, $server" >>"$CALLS"; touch "$STATE/$device" ;;
-d) echo "detach $device, $server" >>"$CALLS"; rm "$STATE/$device" ;;
-c) [ -e "$STATE/$device" ] ;;
esac
"""

# A umount waits for the requests that were under way when the server died, and those for the end of the device.
UMOUNT = """#!/bin/sh
until kill -0 "$(cat "$STATE/pid")" 2>/dev/null || [ ! -e "$STATE/nbd0" ]; do
    sleep 0.1
done
echo umount >>"$CALLS"
"""

# What a line in fstab with x-systemd.requires= becomes, as far as the order is concerned.
MOUNT_UNIT = """[Unit]
Requires=logcache-nbd@main.service
After=logcache-nbd@main.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo mount >>$CALLS'
ExecStop={folder}/bin/umount
Environment=CALLS={folder}/calls STATE={folder}/state
"""

# systemd's user instance is the whole service manager. It starts where the system was booted with systemd, so it gets a /run of
# its own, which says so. And it takes possession of the control group that it starts in, with all processes there: so that is
# one with nobody else in it, or nothing is started.
UNDER_SYSTEMD = """
groups=0
while IFS=: read -r _ kind path; do
    top=/sys/fs/cgroup
    case $kind in
    "") [ -e $top/cgroup.controllers ] || top=$top/unified ;;
    name=systemd) top=$top/systemd ;;
    *) continue ;;
    esac
    [ -d "$top" ] || continue
    mkdir "$top$path/$GROUP" && echo $$ >"$top$path/$GROUP/cgroup.procs" || exit 77
    groups=$((groups + 1))
done </proc/self/cgroup
[ $groups -gt 0 ] || exit 77
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0 && chmod 700 /run/user/0 || exit 77
export XDG_RUNTIME_DIR=/run/user/0 XDG_CONFIG_HOME="$FOLDER/config" HOME="$FOLDER"
/lib/systemd/systemd --user >"$FOLDER/manager.log" 2>&1 &
manager=$!
end()
{
    kill $manager
    wait $manager || true
}
trap end EXIT
# until_ COMMAND...: it succeeds, within a minute
until_()
{
    for try in $(seq 600); do
        ! "$@" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}
sc() { systemctl --user --quiet "$@"; }
none_is() { ! sc is-active logcache-nbd@main && ! sc is-active data; }
until_ sc list-units >/dev/null || exit 77
set -e
echo start >>"$CALLS"
(sleep 2; truncate -s 8M "$LATE") &
sc start data
echo stop >>"$CALLS"
sc stop logcache@main
none_is
sc start data
first=$(cat "$STATE/pid")
echo kill >>"$CALLS"
kill -9 "$first"
other() { [ "$(cat "$STATE/pid")" != "$first" ] && sc is-active logcache@main; }
until_ other
until_ none_is
echo restart >>"$CALLS"
sc restart data
sc stop logcache@main
"""


def remove_group(name):
    """Below our own, in each hierarchy of control groups; who was in it has ended."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        paths = {line.rstrip("\n").split(":", 2)[2] for line in f}
    for top in ["/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")]:
        for path in paths:
            for folder, _, _ in os.walk(f"{top}/{path}/{name}", topdown=False):
                os.rmdir(folder)


@case()
def the_order(env):
    """The units under systemd: what comes before what, also when the server dies, and when its disk comes late."""
    need_root()
    if not os.path.exists("/lib/systemd/systemd") or not shutil.which("unshare"):
        raise Skip("systemd or unshare is not installed")
    calls, late = env.path("calls"), f"/dev/shm/logcache-test-{os.getpid()}"
    for folder in ("bin", "state", "config/systemd/user"):
        os.makedirs(env.path(folder))
    for name, content in (("nbd-client", TELLING_CLIENT), ("umount", UMOUNT), ("modprobe", "#!/bin/sh\n"), ("dd", "#!/bin/sh\n"),
                          # Whom the helper asks is the user's instance here
                          ("systemctl", '#!/bin/sh\nexec /usr/bin/systemctl --user "$@"\n')):
        with open(env.path(f"bin/{name}"), "w", encoding="utf-8") as f:
            f.write(content)
        os.chmod(env.path(f"bin/{name}"), 0o755)
    with open(env.path("main.conf"), "w", encoding="utf-8") as f:
        f.write(f'PLUGIN={harness.MODULE}\nOPTIONS="-P {env.path("state/pid")}"\nNBD=/dev/nbd0\n'
                f'PARAMETERS="cache={env.path("cache")} cache-size=8M backing={late}"\n'
                f'STATE={env.path("state")}\nCALLS={calls}\nPATH={env.path("bin")}:{os.environ["PATH"]}\n')
    # All that is about order and restarts; what a user's instance may not do is about something else.
    keys = ("Type|Timeout\\w+|Environment\\w*|Exec\\w+|RuntimeDirectory\\w*|Restart\\w*|RemainAfterExit|KillMode|"
            "BindsTo|After|StartLimit\\w+")
    for name in UNITS:
        text = with_helper(unit(name)).replace("/etc/logcache/%i.conf", env.path("%i.conf")).replace("--swap", "")
        with open(env.path(f"config/systemd/user/{name}"), "w", encoding="utf-8") as f:
            f.writelines(line + "\n" for line in text.splitlines() if re.match(rf"\[|({keys})=", line))
    with open(env.path("config/systemd/user/data.service"), "w", encoding="utf-8") as f:
        f.write(MOUNT_UNIT.format(folder=env.folder))
    env.at_end(lambda: os.path.exists(late) and os.unlink(late))
    group = f"logcache-test-{os.getpid()}"
    env.at_end(lambda: remove_group(group))
    done = subprocess.run(
        ["unshare", "--mount", "timeout", "120", "bash", "-c", UNDER_SYSTEMD], capture_output=True, text=True, check=False,
        env={**os.environ, "FOLDER": env.folder, "CALLS": calls, "STATE": env.path("state"), "LATE": late,
             "GROUP": group})
    if done.returncode in (1, 77) and not os.path.exists(calls):
        raise Skip(f"no systemd in a namespace of its own: {done.stderr.strip()}")
    with open(calls, encoding="utf-8") as f:
        seen = f.read().splitlines()
    assert done.returncode == 0, (done, seen)
    assert seen == [
        "start", "attach nbd0, alive", "mount",
        "stop", "umount", "detach nbd0, alive", "attach nbd0, alive", "mount",
        "kill", "detach nbd0, dead", "umount",
        "restart", "attach nbd0, alive", "mount", "umount", "detach nbd0, alive"], seen
