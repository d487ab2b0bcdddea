# SPDX-License-Identifier: BSD-3-Clause
"""The kernel that Debian's linux-image-* has installed, as an emulated machine boots it best, and an initramfs.

The initramfs holds a static busybox, `init`, and the modules without which the root of the host cannot be
mounted. All other modules are loaded in the guest by modprobe, from there.
"""

import collections
import glob
import lzma
import os
import shutil
import stat
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "9p", "9pnet_virtio", "overlay")

Kernel = collections.namedtuple("Kernel", "version image modules")


class Missing(Exception):
    """What is needed for a virtual machine is not there; the text says what, and how to get it."""


def find_kernel(version=None):
    """The newest kernel that has both image and modules, or that VERSION."""
    found = []
    for image in glob.glob("/boot/vmlinuz-*"):
        v = image.removeprefix("/boot/vmlinuz-")
        modules = f"/lib/modules/{v}"
        if os.path.exists(f"{modules}/modules.dep") and version in (None, v):
            numbers = [int(n) for n in v.replace("-", ".").split(".") if n.isdigit()]
            found.append((numbers, Kernel(v, image, modules)))
    if not found:
        raise Missing(f"no kernel {version or ''} in /boot with modules in /lib/modules: install "
                      "linux-image-amd64")
    return max(found)[1]


def unpack(kernel, folder):
    """KERNEL with the image that is in its image, in FOLDER, if qemu can start that (by its PVH entry).

    What the BIOS loads is compressed with xz: to unpack it takes an emulated CPU longer than all the rest of the boot.
    Documentation/x86/boot.rst of the kernel has the fields of the header.
    """
    image = read(kernel.image)
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    offset += (setup_sectors + 1) * 512
    payload = image[offset:offset + length]
    with open(kernel.image.replace("vmlinuz", "config"), encoding="ascii") as f:
        has_entry = "CONFIG_PVH=y\n" in f
    if not has_entry or not payload.startswith(b"\xfd7zXZ\0"):
        return kernel
    path = os.path.join(folder, "vmlinux")
    with open(path, "wb") as f:
        f.write(lzma.LZMADecompressor().decompress(payload))  # the size stands behind it
    return kernel._replace(image=path)


def find_program(name, package):
    path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is not installed: install {package}")
    return path


def with_dependencies(kernel, names):
    """Paths of modules below kernel.modules, each behind what it needs."""
    needs = {}
    with open(f"{kernel.modules}/modules.dep", encoding="ascii") as f:
        for line in f:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
    by_name = {os.path.basename(p).split(".")[0].replace("-", "_"): p for p in needs}
    with open(f"{kernel.modules}/modules.builtin", encoding="ascii") as f:
        builtin = {os.path.basename(line.strip()).split(".")[0].replace("-", "_") for line in f}
    order = []
    for name in names:
        path = by_name.get(name)
        if path is None:
            if name in builtin:
                continue
            raise Missing(f"kernel {kernel.version} has no module {name}")
        # modules.dep lists what is needed first, last
        for p in [*reversed(needs[path]), path]:
            if p not in order:
                order.append(p)
    return order


class Archive:
    """A cpio archive in the format "newc"."""

    def __init__(self):
        self._bytes = bytearray()
        self._inode = 0

    def add(self, name, mode, content=b""):
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        self._bytes += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        self._pad()
        self._bytes += content
        self._pad()

    def _pad(self):
        self._bytes += b"\0" * (-len(self._bytes) % 4)

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name, content, mode=0o644):
        self.add(name, stat.S_IFREG | mode, content)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self._bytes)


def read(path):
    with open(path, "rb") as f:
        content = f.read()
    return lzma.decompress(content) if path.endswith(".xz") else content


def build(kernel, path):
    """Write the initramfs to PATH."""
    archive = Archive()
    for folder in ("bin", "dev", "proc", "sys", "host", "top", "root", "modules"):
        archive.folder(folder)
    archive.file("bin/busybox", read(find_program("busybox", "busybox-static")), 0o755)
    archive.file("init", read(os.path.join(HERE, "init")), 0o755)
    names = []
    for number, module in enumerate(with_dependencies(kernel, MODULES)):
        names.append(f"modules/{number:02}.ko")
        archive.file(names[-1], read(os.path.join(kernel.modules, module)))
    with open(path, "wb") as f:
        f.write(archive.finish())
