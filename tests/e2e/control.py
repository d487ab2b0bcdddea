# SPDX-License-Identifier: BSD-3-Clause
"""A client of the control interface, load from verifying clients, and a strict reader of metrics."""

import http.client
import json
import multiprocessing
import os
import random
import re
import socket
import time

from harness import K, M
from test_io import one_request, read_all


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s=30):
        super().__init__("logcache", timeout=timeout_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Status(Exception):
    """An answer that is an error."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Control:
    """What an administrator can ask a server with control=PATH."""

    def __init__(self, path):
        self.path = path

    def raw(self, method, path, body=None, headers=None):
        """(status, headers, body)"""
        connection = UnixConnection(self.path)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def ask(self, method, path, body=None):
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        status, headers, answer = self.raw(method, path, text)
        assert headers["Content-Type"] == "application/json", headers
        answer = json.loads(answer)
        if status >= 300:
            raise Status(status, answer["error"])
        return answer

    def get(self, path):
        return self.ask("GET", path)

    def status(self):
        return self.get("/v1/status")

    def settings(self):
        return {s["key"]: s["value"] for s in self.get("/v1/settings")["settings"]}

    def change(self, persist=False, **settings):
        body = {key.replace("_", "-"): value for key, value in settings.items()}
        return self.ask("PATCH", "/v1/settings" + ("?persist=1" if persist else ""), body)

    def start(self, what, **body):
        """Start a job: "drain", "attach", "detach"."""
        path = "/v1/drain" if what == "drain" else f"/v1/cache/{what}"
        return self.ask("POST", path, {k.replace("_", "-"): v for k, v in body.items()})

    def wait(self, job, timeout_s=60):
        """The job when it has ended."""
        end = time.monotonic() + timeout_s
        while job["state"] == "running":
            assert time.monotonic() < end, f"{job} still runs"
            time.sleep(0.005)
            job = self.get(f"/v1/jobs/{job['id']}")
        return job

    def do(self, what, **body):
        job = self.wait(self.start(what, **body))
        assert job["state"] == "done", job
        return job


def refused(code, function, *args, says=()):
    """FUNCTION fails with this status, and says these words."""
    try:
        result = function(*args)
    except Status as e:
        assert e.code == code, e
        for word in (says,) if isinstance(says, str) else says:
            assert re.search(word, e.text), f"'{word}' is not in: {e.text}"
        return e.text
    raise AssertionError(f"not refused: {result}")


def serve(env, size=32 * M, cache_size=16 * M, **parameters):
    """A server with a control socket; (server, control, path of the backing store)."""
    backing = env.path("backing")
    if not os.path.exists(backing):
        env.make_file("backing", size, env.rng.randbytes(min(size, 8 * M)))
    if cache_size:
        parameters = {"cache": env.path("cache"), "cache_size": cache_size, **parameters}
    elif "cache_size" in parameters:
        del parameters["cache_size"]
    server = env.serve(backing=backing, control=env.path("ctl"), **parameters)
    return server, Control(env.path("ctl")), backing


class Window:
    """A part of a volume that looks like a volume."""

    def __init__(self, h, base):
        self.h, self.base = h, base

    def pread(self, size, offset):
        return self.h.pread(size, offset + self.base)

    def pwrite(self, buf, offset, flags=0):
        self.h.pwrite(buf, offset + self.base, flags)

    def zero(self, size, offset, flags=0):
        self.h.zero(size, offset + self.base, flags)

    def trim(self, size, offset, flags=0):
        self.h.trim(size, offset + self.base, flags)

    def __getattr__(self, name):
        return getattr(self.h, name)


class Load:
    """Clients that write, read and compare, each in a process and a part of the volume of its own."""

    def __init__(self, env, server, backing, nr=3, largest=64 * K):
        with open(backing, "rb") as f:
            content = f.read()
        size = len(content) // nr // M * M
        self.clients = []
        for i in range(nr):
            ours, theirs = multiprocessing.Pipe()
            part = bytearray(content[i * size:(i + 1) * size])
            process = multiprocessing.get_context("fork").Process(
                target=self._client,
                args=(theirs, server, i * size, part, env.rng.randrange(1 << 32), largest), daemon=True)
            process.start()
            theirs.close()
            self.clients.append((process, ours, i * size))
        self.rest = content[nr * size:]

    @staticmethod
    def _client(pipe, server, base, model, seed, largest):
        rng = random.Random(seed)
        slowest, nr = 0, 0
        try:
            h = server.connect()
            w = Window(h, base)
            while not pipe.poll():
                start = time.monotonic()
                one_request(w, rng, model, largest)
                slowest = max(slowest, time.monotonic() - start)
                nr += 1
            assert read_all(w, len(model), 1 * M) == model, "the volume is not the model"
            h.shutdown()
            pipe.send((nr, slowest, bytes(model)))
        except Exception as e:  # pylint: disable=broad-except
            pipe.send(f"the client at {base}: {type(e).__name__}: {e}")

    def check(self):
        """All of them go on."""
        for _, pipe, _ in self.clients:
            if pipe.poll():
                raise AssertionError(pipe.recv())

    def stop(self):
        """(what the volume holds now, how many requests there were, how long the slowest took in s)"""
        content, requests, slowest = b"", 0, 0
        for _, pipe, _ in self.clients:
            pipe.send("stop")
        for process, pipe, base in self.clients:
            result = pipe.recv()
            process.join(30)
            if isinstance(result, str):
                raise AssertionError(result)
            assert base == len(content)
            content += result[2]
            requests += result[0]
            slowest = max(slowest, result[1])
        return content + self.rest, requests, slowest


def content_of(path):
    with open(path, "rb") as f:
        return f.read()


LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")


class Metrics:
    """The text format of Prometheus, version 0.0.4, strictly."""

    def __init__(self, control=None, text=None):
        if control:
            code, headers, body = control.raw("GET", "/metrics")
            assert code == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = body.decode()
        assert text.endswith("\n")
        self.types, self.helps, self.series = {}, {}, []
        family = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family, text_of_help = line[7:].split(" ", 1)
                assert family not in self.helps, f"{family} comes twice"
                self.helps[family] = text_of_help
            elif line.startswith("# TYPE "):
                name, kind = line[7:].split(" ")
                assert name == family and name not in self.types, f"{line} is not where it belongs"
                self.types[name] = kind
            else:
                match = SERIES.fullmatch(line)
                assert match, f"not a series: {line}"
                name = match[1]
                ends = ("_bucket", "_sum", "_count") if self.types[family] == "histogram" else ("",)
                assert name in [family + end for end in ends], f"{name} below {family}"
                self.series.append((name, self._labels(match[2] or ""), float(match[3])))
        self._check()

    @staticmethod
    def _labels(text):
        labels, at = {}, 0
        while at < len(text):
            match = LABEL.match(text, at)
            assert match, f"not a label: {text[at:]}"
            assert match[1] not in labels
            labels[match[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])
            at = match.end()
        return labels

    def _check(self):
        assert self.types and self.types.keys() == self.helps.keys()
        seen = set()
        for name, labels, value in self.series:
            key = (name, tuple(sorted(labels.items())))
            assert key not in seen, f"{key} is there twice"
            seen.add(key)
            assert value == value and value >= 0, f"{name} is {value}"
        for family, kind in self.types.items():
            assert kind in ("counter", "gauge", "histogram") and self.helps[family], family
            assert (kind == "counter") == family.endswith("_total"), f"{family} is a {kind}"
            assert re.fullmatch(r"logcache_[a-z0-9_]+", family), family
            assert not re.search(r"_(ms|us|ns|kib|mib|blocks_bytes|percent)(_|$)", family), family
            if kind == "histogram":
                self._check_histogram(family)

    def _check_histogram(self, family):
        rows = {}
        for name, labels, value in self.series:
            if not name.startswith(family):
                continue
            rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
            row = rows.setdefault(rest, {"buckets": []})
            if name == family + "_bucket":
                row["buckets"].append((float(labels["le"]), value))
            else:
                row[name[len(family):]] = value
        assert rows
        for row in rows.values():
            bounds, counts = zip(*row["buckets"])
            assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf")
            assert list(counts) == sorted(counts) and counts[-1] == row["_count"]
            assert (row["_sum"] > 0) == (row["_count"] > 0)

    def value(self, name, **labels):
        found = [v for n, have, v in self.series if n == name and labels.items() <= have.items()]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]

    def counters(self):
        """What may never fall."""
        return {(n, tuple(sorted(have.items()))): v for n, have, v in self.series
                if n.endswith(("_total", "_bucket", "_sum", "_count"))}


def keys_of(value):
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()
