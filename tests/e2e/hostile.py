#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""An NBD server that is broken, or means harm: hostile.py SOCKET FOLDER KEY=VALUE...

A process of its own. It has a disk in memory, serves any number of connections, and does right unless told otherwise: by the keys,
for ever, or by the file FOLDER/now, which holds the name of what goes wrong from now on. What that may be: the functions WRONG.
"""

import os
import socket
import struct
import sys
import threading
import time

EACCES, EINVAL, ENOTSUP, ESHUTDOWN = 13, 22, 95, 108
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_ZERO, MULTI_CONN, FAST_ZERO = (
    1 << i for i in (0, 1, 2, 3, 5, 6, 8, 11))
FLAG_FAST = 1 << 4
DONE = 1
NONE, OFFSET_DATA, OFFSET_HOLE, BLOCK_STATUS, ERROR = 0, 1, 2, 5, 32769

NOW = ""  # the file
KEYS = {"size": str(16 << 20), "flags": str(HAS_FLAGS | SEND_FLUSH | SEND_TRIM | SEND_ZERO | MULTI_CONN),
        "minimum": "1", "preferred": "4096", "maximum": str(32 << 20), "connections": "1000000", "structured": "1"}
DISK = bytearray()
LOCK = threading.Lock()
CONNECTIONS = []


def wrong():
    try:
        with open(NOW, encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


class Gone(Exception):
    pass


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.structured = False
        self.lock = threading.Lock()

    def get(self, nr):
        data = b""
        while len(data) < nr:
            more = self.sock.recv(nr - len(data))
            if not more:
                raise Gone
            data += more
        return data

    def put(self, data):
        self.sock.sendall(data)

    # --- the handshake ---

    def option_reply(self, option, kind, data=b""):
        self.put(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)

    def shake_hands(self):
        if wrong() == "no_greeting":
            time.sleep(1000)
        if wrong() == "not_nbd":
            self.put(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))
        self.put(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.get(4)
        while True:
            _, option, length = struct.unpack(">8sII", self.get(16))
            data = self.get(length)
            if wrong() == "no_option":
                time.sleep(1000)
            if option == 8 and KEYS["structured"] == "1":
                self.structured = True
                self.option_reply(option, 1)
            elif option == 10 and self.structured:
                self.option_reply(option, 4, struct.pack(">I", 1) + b"base:allocation")
                self.option_reply(option, 1)
            elif option in (6, 7):
                self.option_reply(option, 3, struct.pack(">HQH", 0, int(KEYS["size"]), int(KEYS["flags"])))
                self.option_reply(option, 3, struct.pack(
                    ">HIII", 3, int(KEYS["minimum"]), int(KEYS["preferred"]), int(KEYS["maximum"])))
                self.option_reply(option, 1)
                if option == 7:
                    return
            else:
                self.option_reply(option, 0x80000001)
            del data

    # --- answers ---

    def simple(self, cookie, error=0, data=b""):
        self.put(struct.pack(">IIQ", 0x67446698, error, cookie) + data)

    def chunk(self, cookie, kind, data=b"", flags=0):
        self.put(struct.pack(">IHHQI", 0x668e33ef, flags, kind, cookie, len(data)) + data)

    def data_chunk(self, cookie, offset, nr, flags=0):
        self.chunk(cookie, OFFSET_DATA, struct.pack(">Q", offset) + bytes(DISK[offset:offset + nr]), flags)

    def answer(self, cookie, kind, offset, nr, error=0):
        if kind == READ and not self.structured:
            self.simple(cookie, error, b"" if error else bytes(DISK[offset:offset + nr]))
        elif kind == READ and not error:
            self.data_chunk(cookie, offset, nr, DONE)
        elif kind == STATUS and not error:
            self.chunk(cookie, BLOCK_STATUS, struct.pack(">III", 1, nr, 0), DONE)
        elif kind in (READ, STATUS):
            self.chunk(cookie, ERROR, struct.pack(">IH", error, 0), DONE)
        else:
            self.simple(cookie, error)

    def serve(self):
        self.shake_hands()
        while True:
            _, flags, kind, cookie, offset, nr = struct.unpack(">IHHQQI", self.get(28))
            data = self.get(nr) if kind == WRITE else b""
            if kind == DISC:
                raise Gone
            if wrong():
                WRONG[wrong()](self, flags, kind, cookie, offset, nr, data)
            else:
                self.do_right(flags, kind, cookie, offset, nr, data)

    def do_right(self, _, kind, cookie, offset, nr, data):
        if kind == WRITE:
            DISK[offset:offset + nr] = data
        elif kind in (TRIM, ZERO):
            DISK[offset:offset + nr] = bytes(nr)
        self.answer(cookie, kind, offset, nr)


# --- what may go wrong: with the handshake (above: no_greeting, not_nbd, no_option), or with requests ---


def error(number, kinds=range(8)):
    def fail(c, flags, kind, cookie, offset, nr, data):
        if kind in kinds:
            c.answer(cookie, kind, offset, nr, number)
        else:
            c.do_right(flags, kind, cookie, offset, nr, data)
    return fail


def only_reads(function):
    def do(c, flags, kind, cookie, offset, nr, data):
        if kind == READ:
            function(c, cookie, offset, nr)
        else:
            c.do_right(flags, kind, cookie, offset, nr, data)
    return do


def no_answer(*_):
    pass


def close(*_):
    raise Gone


def unknown_cookie(c, _, kind, cookie, offset, nr, __):
    c.answer(cookie ^ 0x5555, kind, offset, nr)


def garbage(c, *_):
    c.put(b"garbage!" * 64)


def answers_twice(c, flags, kind, cookie, offset, nr, data):
    c.do_right(flags, kind, cookie, offset, nr, data)
    c.answer(cookie, kind, offset, nr)


@only_reads
def pieces(c, cookie, offset, nr):
    """Right, but in as odd a way as is allowed: in two parts, the second one first, with zeros as a hole."""
    half = nr // 2
    c.data_chunk(cookie, offset + half, nr - half)
    if not any(DISK[offset:offset + half]):
        c.chunk(cookie, OFFSET_HOLE, struct.pack(">QI", offset, half))
    else:
        c.data_chunk(cookie, offset, half)
    c.chunk(cookie, NONE, flags=DONE)


@only_reads
def first_half_twice(c, cookie, offset, nr):
    c.data_chunk(cookie, offset, nr // 2)
    c.data_chunk(cookie, offset, nr // 2, DONE)


@only_reads
def nothing(c, cookie, *_):
    c.chunk(cookie, NONE, flags=DONE)


@only_reads
def half(c, cookie, offset, nr):
    c.data_chunk(cookie, offset, nr // 2, DONE)


@only_reads
def beyond(c, cookie, offset, nr):
    c.data_chunk(cookie, offset + nr // 2, nr, DONE)


@only_reads
def cut_short(c, cookie, offset, nr):
    c.put(struct.pack(">IHHQIQ", 0x668e33ef, DONE, OFFSET_DATA, cookie, nr + 8, offset) + bytes(nr // 2))
    raise Gone


@only_reads
def endless(c, cookie, offset, nr):
    while wrong() == "endless":
        c.data_chunk(cookie, offset, nr)


def no_fast_zeros(c, flags, kind, cookie, offset, nr, data):
    """Each of them is refused, and not before several have come."""
    if kind == ZERO and flags & FLAG_FAST:
        with LOCK:
            CONNECTIONS.append((c, cookie))
            late = list(CONNECTIONS) if len(CONNECTIONS) >= 4 else []
            if late:
                CONNECTIONS.clear()
        for other, its in late:
            other.simple(its, ENOTSUP)
    else:
        with open(NOW + ".log", "a", encoding="ascii") as f:
            f.write({WRITE: "write", ZERO: "zero"}.get(kind, "other") + f" {nr}\n")
        c.do_right(flags, kind, cookie, offset, nr, data)


def wrong_extents(c, flags, kind, cookie, offset, nr, data):
    """Of no length, and of more than was asked for."""
    if kind == STATUS:
        c.chunk(cookie, BLOCK_STATUS, struct.pack(">IIIII", 1, 0, 3, 0xffffffff, 0), DONE)
    else:
        c.do_right(flags, kind, cookie, offset, nr, data)


WRONG = {
    "errors": error(EACCES), "errors_unknown": error(0x12345), "errors_not_supported": error(ENOTSUP),
    "errors_shutdown": error(ESHUTDOWN), "write_errors": error(EINVAL, (WRITE, FLUSH)), "no_answer": no_answer,
    "no_flush": error(EACCES, (FLUSH,)),
    "close": close, "unknown_cookie": unknown_cookie, "garbage": garbage, "answers_twice": answers_twice,
    "pieces": pieces, "first_half_twice": first_half_twice, "nothing": nothing, "half": half, "beyond": beyond,
    "cut_short": cut_short, "endless": endless, "no_fast_zeros": no_fast_zeros, "wrong_extents": wrong_extents,
}


def run(sock):
    try:
        Connection(sock).serve()
    except (Gone, OSError):
        pass
    sock.close()


def main():
    global NOW
    path, NOW = sys.argv[1], os.path.join(sys.argv[2], "now")
    KEYS.update(arg.split("=", 1) for arg in sys.argv[3:])
    DISK.extend(bytes(min(int(KEYS["size"]), 64 << 20)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    open_now = threading.Semaphore(int(KEYS["connections"]))
    while True:
        sock, _ = listener.accept()
        open_now.acquire()

        def serve(s=sock):
            run(s)
            open_now.release()

        threading.Thread(target=serve, daemon=True).start()


main()
