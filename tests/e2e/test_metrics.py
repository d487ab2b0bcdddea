# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: metrics for Prometheus, their TCP port, and that all of it is documented."""

import http.client
import json
import os
import re
import socket
import time

import nbd

import harness
from control import Control, Load, Metrics, keys_of, serve
from devices import FailingStore
from harness import K, M, case, pick


@case()
def metrics(env):
    server, control, backing = serve(env, size=24 * M)
    load = Load(env, server, backing)
    before = Metrics(control)
    for _ in range(pick(5, 30)):
        time.sleep(0.1)
        now = Metrics(control)
        assert now.types == before.types
        for key, value in before.counters().items():
            assert now.counters()[key] >= value, f"{key} fell from {value} to {now.counters()[key]}"
        before = now
    load.stop()
    st, now = control.status(), Metrics(control)
    assert now.value("logcache_client_requests_total", op="write") == st["clients"]["writes"]
    assert now.value("logcache_client_bytes_total", op="read") == st["clients"]["read_bytes"]
    assert now.value("logcache_client_latency_seconds_count", op="read") == st["clients"]["reads"]
    assert now.value("logcache_cache_state", state="attached") == 1
    ring = {state: now.value("logcache_segments", state=state) for state in ("free", "clean", "dirty")}
    assert sum(ring.values()) == st["cache"]["segments"]["total"], ring
    assert now.value("logcache_open_segments") <= ring["dirty"]
    assert now.value("logcache_resident_bytes") > now.value("logcache_memory_bytes") / 4 > 0
    assert now.value("logcache_seq") >= now.value("logcache_durable_seq") > 0
    kinds = [v for n, _, v in now.series if n == "logcache_client_blocks_total"]
    assert len(kinds) == 16 and sum(kinds) > 0
    server.stop()


@case()
def segments_are_counted_exactly(env):
    """Ring and counts, also of more segments than the picture has cells, after a lap, a drain and a restart."""
    parameters = {"size": 24 * M, "cache_size": 16 * M, "segment_size": "8K", "flush_interval": 0}
    server, control, _ = serve(env, writeback="off", **parameters)

    def ring():
        s = control.status()["cache"]["segments"]
        assert s["free"] + s["clean"] + s["dirty"] == s["total"], s
        assert s["dirty"] == s["head_id"] - s["tail_id"] and s["open"] in (0, 1), s
        return s

    before = ring()
    assert before["total"] > 256 and before["free"] == before["total"], before
    h = server.connect()
    for i in range(100):
        h.pwrite(b"%04d" % i * K, i * 4096)
        h.flush()
    # One block and one header make a segment of 8 KiB.
    full = ring()
    assert full["dirty"] == 100 and full["clean"] == 0 and full["free"] == full["total"] - 100, full
    control.do("drain")
    drained = ring()
    assert drained["dirty"] == drained["open"] == 0 and drained["clean"] == 100, drained
    assert drained["free"] == full["free"], drained
    control.change(writeback=True, dirty_low=0)
    for i in range(0, 6000, 16):
        h.pwrite(b"%04d" % i * 16 * K, i % 5000 * 4096)
    control.do("drain")
    lap = ring()
    assert lap["head_id"] > lap["total"] and 0 < lap["free"] < 10, lap
    h.shutdown()
    server.stop()
    server, control, _ = serve(env, cache_size=None, cache=env.path("cache"))
    again = ring()
    assert again["dirty"] == 0 and abs(again["free"] - lap["free"]) <= 1, (lap, again)
    server.stop()


@case()
def errors_are_counted_for_each_store(env):
    """Whoever asked for the I/O: a client's read, a client's write, write-back."""
    store = FailingStore(env, "store", 8 * M)
    fine = env.make_file("fine", 8 * M)
    server = env.serve(cache=env.path("cache"), cache_size=8 * M, writeback="off", control=env.path("ctl"),
                       volumes=[("", fine), ("bad", store.path)])
    control = Control(env.path("ctl"))

    def errors():
        st, now = control.status(), Metrics(control)
        fine_ones, bad_ones = (now.value("logcache_volume_errors_total", volume=name) for name in ("", "bad"))
        assert fine_ones == 0 and [v["errors"] for v in st["volumes"]] == [0, bad_ones]
        assert now.value("logcache_store_errors_total", store="backing") == st["errors"]["backing"] == bad_ones
        assert st["errors"]["cache"] == st["errors"]["crc"] == 0
        return bad_ones

    h = server.connect("bad")
    h.pwrite(b"x" * 4096, 0)
    assert errors() == 0
    store.fail()
    fails(lambda: h.pread(4096, 1 * M))
    of_reading = errors()
    assert of_reading > 0
    assert control.wait(control.start("drain"))["state"] == "failed"
    of_writing = errors()
    assert of_writing > of_reading
    store.heal()
    control.do("drain")
    assert errors() == of_writing
    control.ask("POST", "/v1/stats/reset")
    assert errors() == 0
    control.do("detach")
    store.fail()
    fails(lambda: h.pwrite(b"y" * 4096, 0))
    assert errors() > 0
    store.heal()
    h.shutdown()
    server.stop()


def fails(function):
    try:
        function()
    except nbd.Error:
        return
    raise AssertionError("it did not fail")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tcp(port, method, path, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@case()
def metrics_over_tcp(env):
    """Read-only, and on the loopback address unless told otherwise."""
    port = free_port()
    backing = env.make_file("backing", 8 * M)
    files = {"cache": env.path("cache"), "backing": backing}
    server = env.serve(cache_size=8 * M, metrics=port, **files)
    assert not os.path.exists(env.path("ctl"))
    server.wait_log(f"metrics at 127.0.0.1:{port}\n")
    code, text = tcp(port, "GET", "/metrics")
    assert code == 200
    Metrics(text=text.decode())
    code, text = tcp(port, "GET", "/v1/status")
    assert code == 200 and json.loads(text)["state"] == "attached"
    for method, path in (("POST", "/v1/flush"), ("POST", "/v1/drain"), ("GET", "/v1/settings"),
                         ("PATCH", "/v1/settings"), ("POST", "/v1/cache/detach"), ("GET", "/v1/volumes")):
        code, text = tcp(port, method, path)
        assert code == 404 and "error" in json.loads(text), (method, path, code)
    assert tcp(port, "POST", "/metrics")[0] == 405
    with open("/proc/net/tcp", encoding="ascii") as f:
        listening = [line.split()[1] for line in f if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening

    other = env.make_file("other", 8 * M)
    said = env.refused(f"backing={other}", f"metrics=127.0.0.1:{port}")
    assert f"metrics=127.0.0.1:{port}" in said and "in use" in said, said
    server.stop()
    for bad in ("", "x", "0", "65536", "127.0.0.1", "::1", "127.0.0.1:", "1:2:3", ":", "-1", "9811x"):
        said = env.refused(f"backing={other}", f"cache={env.path('cache2')}", "cache-size=8M",
                           f"metrics={bad}")
        assert f"metrics={bad}: must be" in said, said
    assert not os.path.exists(env.path("cache2"))
    said = env.refused(f"backing={other}", "metrics=192.0.2.1:9811")
    assert "metrics=192.0.2.1:9811" in said, said
    said = env.refused(f"backing={other}", "metrics=no..host:9811")
    assert "metrics=no..host:9811" in said and "give a name or address of this machine" in said, said
    for form in (f":{port}", f"localhost:{port}", f"0.0.0.0:{port}"):
        server = env.serve(metrics=form, control=env.path("ctl"), **files)
        assert tcp(port, "GET", "/metrics")[0] == 200
        assert Control(env.path("ctl")).status()["state"] == "attached"
        server.stop()


@case()
def metrics_are_documented(env):
    """docs/control.md lists them all, and what the examples beside it ask for exists."""
    docs = os.path.join(harness.HERE, "../../docs")
    server, control, _ = serve(env)
    now = Metrics(control)
    names = {name for name, _, _ in now.series} | set(now.types)
    for example in ("grafana.json", "prometheus-alerts.yml", "control.md"):
        with open(os.path.join(docs, example), encoding="utf-8") as f:
            text = f.read()
        for name in set(re.findall(r"\blogcache_[a-z_]+", text)) - {"logcache_"}:
            assert name in names, f"{example} asks for {name}, which is none"
    listed = set(re.findall(r"`([a-z_]+)`", text[text.index("## Metrics"):]))
    missing = {family.removeprefix("logcache_") for family in now.types} - listed
    assert not missing, f"control.md does not list {missing}"
    server.stop()


@case()
def answers_are_documented(env):
    """docs/control.md has every field."""
    with open(os.path.join(harness.HERE, "../../docs/control.md"), encoding="utf-8") as f:
        words = set(re.findall(r"[\w-]+", f.read()))
    server, control, _ = serve(env)
    job = control.do("drain")
    for answer in (control.get("/v1/status?buckets=1"), control.get("/v1/settings"), job,
                   control.get("/v1/volumes"), control.get("/v1/jobs")):
        missing = keys_of(answer) - words - set(control.settings())
        assert not missing, f"control.md does not explain {missing}"
    server.stop()
