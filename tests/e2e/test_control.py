# SPDX-License-Identifier: BSD-3-Clause
"""The control interface (docs/control.md): HTTP and JSON on a Unix socket."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
import urllib.parse

import harness
from control import Control, Load, Metrics, Status, UnixConnection, content_of, refused, serve
from devices import FailingStore, wait_until
from harness import K, M, Skip, case, pick


# --- the socket ---

@case()
def socket_is_the_owners(env):
    """Mode 0600 from the first moment on; nothing is left behind in the end."""
    server, control, _ = serve(env)
    mode = os.stat(control.path).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600, oct(mode)
    assert control.status()["state"] == "attached"
    server.stop()
    assert not [name for name in os.listdir(env.folder) if name.startswith("ctl")]


@case()
def stale_socket(env):
    """What a killed server left is replaced."""
    server, control, _ = serve(env)
    server.kill()
    assert os.path.exists(control.path)
    server, control, _ = serve(env)
    assert "replacing the socket" in server.log()
    assert control.status()["server"]["pid"] == server.process.pid
    server.stop()


@case()
def refused_start_leaves_no_socket(env):
    """nbdkit calls nothing of ours when a start fails, be it in the plugin or between its callbacks; the next one found a
    socket, and spoke of a killed server."""
    backing = env.make_file("backing", 8 * M)
    for options, args in ((("-U", "-"), (f"cache={backing}",)),
                          (("-U", backing), ()),
                          (("-U", "-", "-P", "/absent/pid"), ()),
                          (("-f", "-U", "-", "-P", "/absent/pid"), ())):
        done = subprocess.run(["nbdkit", *options, harness.MODULE, backing, f"control={env.path('ctl')}", *args],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                              check=False, text=True, env=harness.ENVIRONMENT)
        # In the background what fails after the fork is between nbdkit and its pid file.
        wait_until(lambda: sorted(os.listdir(env.folder)) == ["backing"], f"{options} left a socket", 30)
        assert "replacing the socket" not in done.stdout, done.stdout


@case()
def live_socket(env):
    """One that is in use is refused, before anything else is touched."""
    server, control, _ = serve(env)
    other = env.make_file("other", 8 * M)
    args = (f"backing={other}", f"cache={env.path('cache2')}", "cache-size=8M")
    said = env.refused(*args, f"control={control.path}")
    assert control.path in said and "another server" in said, said
    assert not os.path.exists(env.path("cache2"))
    assert control.status()["server"]["pid"] == server.process.pid
    server.stop()

    # Of another program, which knows nothing of our lock.
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(env.path("foreign"))
        s.listen()
        said = env.refused(*args, f"control={env.path('foreign')}")
        assert "another program" in said, said
        assert os.path.exists(env.path("foreign"))
    said = env.refused(*args, f"control={other}")
    assert "not a socket" in said and os.path.exists(other), said
    for path, word in (("/absent/ctl", "No such file"), ("/tmp/" + "x" * 120, "shorter"), ("", "path")):
        said = env.refused(*args, f"control={path}")
        assert word in said, said
    assert not os.path.exists(env.path("cache2"))


@case()
def in_the_background(env):
    """The path may be relative; the socket survives the fork, and goes away at the end."""
    env.make_file("backing", 8 * M)
    subprocess.run(["nbdkit", "-U", env.path("sock"), "-P", env.path("pid"), harness.MODULE,
                    "backing=backing", "cache=cache", "cache-size=8M", "control=ctl"],
                   cwd=env.folder, stdin=subprocess.DEVNULL, check=True, env=harness.ENVIRONMENT)
    wait_until(lambda: os.path.exists(env.path("pid")) and os.path.getsize(env.path("pid")), "no server")
    with open(env.path("pid"), encoding="ascii") as f:
        pid = int(f.read())
    try:
        assert Control(env.path("ctl")).status()["server"]["pid"] == pid
        said = env.refused(f"backing={env.make_file('b2', 8 * M)}", f"control={env.path('ctl')}")
        assert "another server" in said
    finally:
        os.kill(pid, 15)
    wait_until(lambda: not os.path.exists(env.path("ctl")), "the socket is still there", 30)


# --- requests ---

@case()
def status(env):
    server, control, backing = serve(env, cache_size=8 * M, writeback="off", segment_size="64K")
    h = server.connect()
    for i in range(100):
        h.pwrite(b"s" * 4096, i * 8192)
    h.pwrite(b"p" * 512, 512)
    h.pread(4096, 0)
    h.pread(4096, 16 * M)
    h.zero(4096, 20 * M)
    h.flush()
    st = control.status()
    assert st["server"]["version"] and st["server"]["uptime_seconds"] >= 0
    assert st["state"] == "attached" and st["cache"]["path"] == env.path("cache")
    assert st["clients"]["writes"] == 101 and st["clients"]["write_bytes"] == 100 * 4096 + 512
    assert st["clients"]["reads"] == 2 and st["clients"]["flushes"] == 1
    for op in ("read", "write", "flush"):
        times = st["latencies"][op]
        assert times["count"] > 0
        assert 0 < times["p50_ns"] <= times["p99_ns"] <= times["p999_ns"] <= times["max_ns"]
    assert st["latencies"]["write"]["count"] == 101 and st["latencies"]["commit"]["count"] > 0
    segments = st["cache"]["segments"]
    assert segments["total"] == segments["free"] + segments["clean"] + segments["dirty"], segments
    assert len(segments["map"]) == min(256, segments["total"])
    assert segments["map"].count("H") == 1 and segments["map"][segments["map_head"]] == "H"
    assert 0 < st["cache"]["dirty_blocks"] <= 102 and 0 < st["cache"]["dirty_share"] < 1
    assert st["blocks"]["write"]["hit"]["buffer"]["part"] == 1
    assert st["blocks"]["read_hit_share"] == 0.5
    assert st["log"]["write_amplification"] > 1 and st["writeback"]["clean_in_seconds"] is None
    assert st["job"] is None and st["settings"]["writeback"] is False
    volume = st["volumes"][0]
    assert volume["name"] == "" and volume["backing"] == backing
    assert volume["dirty_blocks"] == st["cache"]["dirty_blocks"]
    assert "buckets" not in st["latencies"]["read"]
    times = control.get("/v1/status?buckets=1")["latencies"]["write"]
    assert sum(nr for _, nr in times["buckets"]) == times["count"]

    assert control.ask("POST", "/v1/stats/reset") == {"done": True}
    st = control.status()
    assert st["clients"]["writes"] == 0 and st["latencies"]["write"]["count"] == 0
    assert st["cache"]["dirty_blocks"] > 0
    h.shutdown()
    server.stop()


@case()
def without_a_cache(env):
    server, control, _ = serve(env, cache_size=None)
    h = server.connect()
    h.pwrite(b"x" * 4096, 0)
    st = control.status()
    assert st["state"] == "none" and st["cache"] is None and st["clients"]["writes"] == 1
    assert control.ask("POST", "/v1/flush") == {"done": True}
    for what in ("drain", "detach"):
        refused(409, control.start, what, says="there is no cache")
    control.change(stall_timeout=5)
    assert control.settings()["stall-timeout"] == 5
    refused(409, lambda: control.change(persist=True, stall_timeout=6), says="no cache to keep")
    assert control.settings()["stall-timeout"] == 5
    h.shutdown()
    server.stop()


@case()
def volumes(env):
    """Also with names that are no fun in a URL or a label."""
    names = ["", "a", "a/b c", "größe", 'q"\\%?#']
    made = [(name, env.make_file(f"backing{i}", 4 * M, env.rng.randbytes(4096)))
            for i, name in enumerate(names)]
    server = env.serve(volumes=made, cache=env.path("cache"), cache_size=8 * M, control=env.path("ctl"))
    control = Control(env.path("ctl"))
    assert [v["name"] for v in control.get("/v1/volumes")["volumes"]] == names
    for name, backing in made:
        h = server.connect(name)
        h.pwrite(b"v" * 8192, 0)
        h.shutdown()
        volume = control.get("/v1/volumes/" + urllib.parse.quote(name, safe=""))
        assert volume["name"] == name and volume["backing"] == backing
        assert volume["size_bytes"] == 4 * M and volume["cached_blocks"] == 2
    refused(404, control.get, "/v1/volumes/b", says="no volume 'b'")
    series = Metrics(control).series
    found = {labels["volume"] for name, labels, _ in series if name == "logcache_volume_size_bytes"}
    assert found == set(names)
    server.stop()


@case()
def what_is_wrong_is_refused(env):
    server, control, _ = serve(env)
    before = control.settings()
    for method, path in (("GET", "/"), ("GET", "/v1"), ("GET", "/v1/nothing"), ("GET", "/v1/statusx"),
                         ("POST", "/v2/flush"), ("GET", "/v1/jobs/1"), ("GET", "/v1/jobs/x"),
                         ("GET", "/v1/jobs/0"), ("GET", "/v1/jobs/")):
        refused(404, control.ask, method, path)
    for method, path, allow in (("POST", "/v1/status", "GET"), ("DELETE", "/v1/settings", "GET"),
                                ("GET", "/v1/drain", "POST"), ("PUT", "/metrics", "GET")):
        status_code, headers, _ = control.raw(method, path)
        assert status_code == 405 and allow in headers["Allow"], (method, path, headers["Allow"])

    for body, says in (("{", "line 1"), ("{}x", "line 1, column"), ("[1]", "must be {"), ("7", "JSON"),
                       ('{"dirty-low": 20,\n "dirty-low": 20}', "line 2.*duplicate"),
                       ('{"dirty-low": "20"}', "dirty-low: must be a whole number of per cent from 0 to 100"),
                       ('{"dirty-low": 20.5}', "dirty-low"), ('{"dirty-low": -1}', "dirty-low"),
                       ('{"dirty-low": 101}', "from 0 to 100"), ('{"dirty-low": true}', "dirty-low"),
                       ('{"dirty-low": 99999999999999999999}', "."),
                       ('{"dirty-low": 90}', "dirty-low .90. would be above dirty-high .80."),
                       ('{"writeback": 1}', "true or false"), ('{"nothing": 1}', "no such setting"),
                       ('{"on-exit": "maybe"}', '"keep" or "drain"'),
                       ('{"dirty-high": 70, "flush-interval": 5, "nothing": 1}', "no such setting"),
                       ('{"writeback-batch": 4096}', "1048576"), (b'{"\xff": 1}', "decode byte 0xff"),
                       ('{"a\\u0000b": 1}', ".")):
        refused(400, control.ask, "PATCH", "/v1/settings", body, says=says)
    refused(400, control.ask, "PATCH", "/v1/settings?persist=yes", "{}", says="0 or 1")
    refused(400, control.ask, "PATCH", "/v1/settings?persits=1", "{}", says="persits")
    refused(400, control.ask, "PATCH", "/v1/settings?persist=1", {"on-exit": "drain"}, says="cannot be kept")
    refused(400, control.get, "/v1/status?x=1")
    assert control.settings() == before, "a bad request has changed something"

    for path in ("/v1/flush", "/v1/drain", "/v1/stats/reset", "/v1/cache/detach"):
        refused(400, control.ask, "POST", path, {"x": 1}, says="x: there is no such member")
    for body, says in (({}, "path"), ({"path": 1}, "path"), ({"path": "cache"}, "absolute"),
                       ({"path": "/x", "format": "yes"}, "auto"), ({"path": "/" + "x" * 5000}, "path"),
                       ({"path": "/x", "segment-size": 5}, "power of two"),
                       ({"path": "/x", "segment_size": 65536}, "segment_size")):
        refused(400, control.ask, "POST", "/v1/cache/attach", body, says=says)
    refused(409, lambda: control.start("attach", path="/x"), says="a cache already")
    assert control.status()["job"] is None
    server.stop()


@case()
def the_examples_work(env):
    """Those with curl in docs/control.md, as they stand there."""
    if not shutil.which("curl") or not shutil.which("jq"):
        raise Skip("curl or jq is not installed")
    server, control, _ = serve(env)
    with open(os.path.join(harness.HERE, "../../docs/control.md"), encoding="utf-8") as f:
        examples = re.findall(r"^    \$ (curl .*)$", f.read(), re.MULTILINE)
    assert len(examples) >= 5
    for line in examples:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line.replace("curl ", "curl --fail ", 1)], cwd=env.folder,
                              capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0 and done.stdout and "error" not in json.loads(
            done.stdout if " jq " not in line else "{}"), (line, done)
    now = control.settings()
    assert now["dirty-low"] == 20 and now["writeback"] is False, now
    control.wait(control.get("/v1/jobs/1"))
    server.stop()


def talk(control, data, timeout_s=0.2):
    """Send DATA as it is, and return what comes: until the server closes, or waits for more."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout_s)
        s.connect(control.path)
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                answer += piece
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
    return answer


@case()
def oversized_and_garbage(env):
    server, control, _ = serve(env)
    big = b'{"dirty-low": ' + b" " * 70000 + b"20}"
    for path, method in (("/v1/settings", "PATCH"), ("/v1/flush", "POST"), ("/v1/cache/attach", "POST")):
        refused(413, control.ask, method, path, big, says="too large")
    # The same without saying so beforehand; and without end.
    refused(413, chunked, control, "PATCH", "/v1/settings", big, says="too large")
    head = b"POST /v1/flush HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"200 OK" not in talk(control, head + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 64)
    answer = talk(control, b"POST /v1/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert b"413" in answer.splitlines()[0], answer

    for data in (b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n",
                 b"GET /v1/status HTTP/1.1\r\nA: " + b"x" * 100000 + b"\r\n\r\n",
                 b"GET /v1/status HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
                 b"POST /v1/flush HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"\r\n\r\n\r\n", b"\0" * 1000, env.rng.randbytes(100000), b"NBDMAGIC" * 100,
                 b"GET /v1/status HTTP/9.9\r\n\r\n"):
        answer = talk(control, data)
        assert not answer or re.match(rb"HTTP/1\.[01] (4\d\d|50[15]) ", answer), (data[:40], answer[:200])
    # Half a body, and nothing more.
    talk(control, b'PATCH /v1/settings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"dirty-low": 1')
    assert control.settings()["dirty-low"] == 10
    for _ in range(pick(100, 2000)):
        data = bytearray(b'PATCH /v1/settings?persist=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n'
                         b'{"dirty-low": 20}')
        for _ in range(env.rng.randint(1, 4)):
            data[env.rng.randrange(len(data))] = env.rng.randrange(256)
        talk(control, data, 0.01)
    assert control.status()["state"] == "attached"
    server.stop()


def chunked(control, method, path, data):
    """Ask without Content-Length."""
    connection = UnixConnection(control.path)
    connection.request(method, path, iter([data[:1000], data[1000:]]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    if answer.status >= 300:
        raise Status(answer.status, body["error"])
    return body


@case()
def one_connection_many_requests(env):
    server, control, _ = serve(env)
    connection = UnixConnection(control.path)
    for i in range(pick(100, 1000)):
        method, path = (("GET", "/v1/status"), ("POST", "/v1/flush"), ("GET", "/nothing"))[i % 3]
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == (200, 200, 404)[i % 3]
        json.loads(answer.read())
    connection.request("HEAD", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == b""
    connection.close()
    server.stop()


@case()
def stuck_clients_delay_nobody(env):
    """Hundreds that say nothing, or half of something, or do not read their answers."""
    server, control, _ = serve(env)
    stuck = []
    slowest = 0
    for i in range(pick(150, 400)):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(control.path)
        data = (b"", b"GET /v1/sta", b"PATCH /v1/settings HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
                b"GET /v1/status?buckets=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 50)[i % 4]
        try:
            s.sendall(data)
        except OSError:
            pass  # it was closed to make room
        stuck.append(s)
        start = time.monotonic()
        assert control.status()["state"] == "attached"
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 1, f"a request took {slowest:.2f} s"
    h = server.connect()
    start = time.monotonic()
    for i in range(100):
        h.pwrite(b"x" * 4096, i * 4096)
    assert time.monotonic() - start < 2
    h.shutdown()
    for s in stuck:
        s.close()
    server.stop()


@case(quick=False)
def idle_connections_are_closed(env):
    server, control, _ = serve(env)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(control.path)
        start = time.monotonic()
        assert s.recv(100) == b""
        assert 5 < time.monotonic() - start < 20
    server.stop()


@case()
def a_failing_backing_store_delays_nobody(env):
    """A flush that cannot be done fails, and meanwhile others are answered; a drain that fails says why."""
    store = FailingStore(env, "store", 8 * M)
    server = env.serve(backing=store.path, cache=env.path("cache"), cache_size=8 * M, writeback="off",
                       control=env.path("ctl"), stall_timeout=2)
    control = Control(env.path("ctl"))
    h = server.connect()
    h.pwrite(b"f" * 64 * K, 0)
    store.fail()
    job = control.wait(control.start("drain"))
    assert job["state"] == "failed" and f"volume (default), {store.path}: Input/output error" in job["error"], job
    job = control.wait(control.start("detach"))
    assert job["state"] == "failed", job
    assert f"volume (default), {store.path}: Input/output error; the cache stays" in job["error"], job
    st = control.status()
    assert st["state"] == "attached" and st["errors"]["backing"] > 0
    assert control.ask("POST", "/v1/flush") == {"done": True}
    assert h.pread(64 * K, 0) == b"f" * 64 * K
    store.heal()
    control.do("drain")
    assert content_of(store.content)[:64 * K] == b"f" * 64 * K
    assert [j["state"] for j in control.get("/v1/jobs")["jobs"]] == ["done", "failed", "failed"]
    h.shutdown()
    server.stop()


@case()
def a_hanging_store_delays_nobody(env):
    """However many clients wait for a flush that does not end, one that wants to see why gets an answer at once."""
    store = FailingStore(env, "store", 8 * M, flushes_only=True)
    server = env.serve(backing=store.path, control=env.path("ctl"))
    control = Control(env.path("ctl"))
    store.hang()
    waiting = []
    for _ in range(100):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(control.path)
        s.sendall(b"POST /v1/flush HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        waiting.append(s)
        start = time.monotonic()
        assert control.status()["state"] == "none"
        assert time.monotonic() - start < 1
    refused(503, control.ask, "POST", "/v1/flush", says="wait for a disk")
    store.go_on()
    answers = [s.recv(4096).split(b" ")[1] for s in waiting]
    assert answers.count(b"200") == 16 and set(answers) == {b"200", b"503"}, answers
    assert control.ask("POST", "/v1/flush") == {"done": True}
    server.stop()


# --- settings ---

def end_values(setting):
    if "words" in setting:
        return setting["words"]
    if isinstance(setting["value"], bool):
        return (False, True)
    return ([0] if setting["zero_allowed"] else []) + [setting["min"], setting["max"]]


@case()
def settings_under_load(env):
    """Every one to the ends of its range and back, while clients verify what they read."""
    server, control, backing = serve(env)
    load = Load(env, server, backing)
    described = control.get("/v1/settings")["settings"]
    assert {"writeback", "dirty-low", "stall-timeout", "on-exit"} <= {s["key"] for s in described}
    for _ in range(pick(1, 5)):
        for setting in described:
            key = setting["key"]
            assert setting["value"] == setting["default"] and not setting["persistent"], setting
            for value in end_values(setting):
                change = {key: value}
                if key == "dirty-low":
                    change["dirty-high"] = 100
                if key == "dirty-high":
                    change["dirty-low"] = 0
                control.ask("PATCH", "/v1/settings", change)
                assert control.settings()[key] == value
                time.sleep(0.02)
            control.ask("PATCH", "/v1/settings", {key: None, "dirty-low": None, "dirty-high": None})
            assert control.settings()[key] == setting["default"]
            load.check()
    _, requests, _ = load.stop()
    assert requests > 50
    server.stop()


@case()
def settings_are_kept(env):
    """persist=1 lasts beyond a stop and a kill; the command line counts for more; null forgets."""
    server, control, _ = serve(env)
    control.change(persist=True, dirty_low=33, writeback=False, stall_timeout=7)
    control.change(flush_interval=77)  # until the end
    server.kill()
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"))
    now = control.settings()
    assert (now["dirty-low"], now["writeback"], now["stall-timeout"]) == (33, False, 7), now
    assert now["flush-interval"] == 1000
    kept = {s["key"] for s in control.get("/v1/settings")["settings"] if s["persistent"]}
    assert kept == {"dirty-low", "writeback", "stall-timeout"}
    control.change(persist=True, dirty_low=None)
    assert control.settings()["dirty-low"] == 10
    server.stop()
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"), writeback="on")
    now = control.settings()
    assert (now["dirty-low"], now["writeback"], now["stall-timeout"]) == (10, True, 7), now
    server.stop()


@case()
def on_exit_can_be_changed(env):
    server, control, backing = serve(env, writeback="off")
    h = server.connect()
    h.pwrite(b"e" * 4096, 1 * M)
    h.shutdown()
    control.change(on_exit="drain")
    server.stop()
    assert content_of(backing)[1 * M:1 * M + 4096] == b"e" * 4096


# --- flush, drain ---

@case()
def flush(env):
    """What was written before is there after a kill."""
    server, control, _ = serve(env, flush_interval=0)
    h = server.connect()
    h.pwrite(b"d" * 64 * K, 1 * M)
    commits = control.status()["log"]["commits"]
    assert control.ask("POST", "/v1/flush", "{}") == {"done": True}
    assert control.status()["log"]["commits"] > commits
    server.kill()
    server, control, _ = serve(env)
    h = server.connect()
    assert h.pread(64 * K, 1 * M) == b"d" * 64 * K
    h.shutdown()
    server.stop()


@case()
def drain(env):
    """Under load it ends; without, the backing file is the volume."""
    server, control, backing = serve(env, size=24 * M, writeback="off", segment_size="64K")
    load = Load(env, server, backing)
    for _ in range(pick(2, 10)):
        time.sleep(0.3)
        job = control.start("drain")
        assert job["kind"] == "drain" and job["segments"] >= job["segments_left"]
        job = control.wait(job)
        assert job["state"] == "done" and job["segments_left"] == 0, job
        load.check()
    content, requests, _ = load.stop()
    assert requests > 100
    control.do("drain")
    st = control.status()
    assert st["cache"]["dirty_blocks"] == 0 and st["cache"]["segments"]["dirty"] == 0
    assert "#" not in st["cache"]["segments"]["map"]
    assert content_of(backing) == content, "the backing file is not the volume"
    server.stop()
