/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * notify.h - tell systemd how the server is doing: it begins, it serves, it ends.
 *
 * A unit with Type=notify counts as started when the server says so, and not before: recovering a large cache takes
 * a while, and whoever is ordered behind the unit wants to connect. nbdkit does not do this by itself. The protocol is a
 * datagram with lines to the socket that $NOTIFY_SOCKET names (sd_notify(3)); it needs no library.
 */
#ifndef LC_PLUGIN_NOTIFY_H
#define LC_PLUGIN_NOTIFY_H

/*
 * Send LINES ("READY=1\nSTATUS=..."); what is cut at 256 bytes was too long. Does nothing where nobody asked for it, and a
 * service manager that does not listen is no reason to fail. Any thread.
 */
void notify_systemd(const char *lines, ...) __attribute__((format(printf, 1, 2)));

#endif
