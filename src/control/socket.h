/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * socket.h - the listening sockets of the control interface.
 *
 * A Unix socket outlives the server that was killed: its file is there, and nobody answers. To tell that from one that is
 * in use, whoever binds PATH holds a lock (flock) on PATH.lock as long as it lives. With the lock in hand
 * nobody else of our kind uses the socket, nor replaces it at the same time; what answers all the same is
 * some other program, and is left alone, too. Both files go away with a server that ends in good order, and with one that does
 * not come to serve.
 *
 * Called before there are threads (the umask is the process's).
 */
#ifndef LC_CONTROL_SOCKET_H
#define LC_CONTROL_SOCKET_H

#include <sys/types.h>

#include "logcache/types.h"

struct unix_socket {
	const char *path; /* the caller's */
	int fd; /* listening, does not block; whoever serves it closes it, and says -1 here */
	int lock_fd;
	dev_t dev; /* the file that we made at PATH */
	ino_t ino;
};

/* Bind and listen at PATH, for its owner alone (mode 0600). 0 or -errno with ERR. */
int unix_socket_open(struct unix_socket *s, const char *path, struct lc_error *err);

/* Remove the socket and its lock. Does nothing to one that was not opened (lock_fd -1). */
void unix_socket_close(struct unix_socket *s);

/*
 * The process ends, perhaps with other threads in it, without having come to unix_socket_close(): remove both files, unless
 * a child has inherited the lock, and goes on with them. Nothing is released otherwise.
 */
void unix_socket_abandon(struct unix_socket *s);

/*
 * Split [HOST:]PORT. Without a host it is the loopback address. HOST has HOST_BYTES, PORT PORT_BYTES.
 * -EINVAL with ERR.
 */
#define HOST_BYTES 256u
#define PORT_BYTES 6u
int address_split(const char *address, char host[HOST_BYTES], char port[PORT_BYTES],
		  struct lc_error *err);

/* Bind and listen at [HOST:]PORT. Returns the descriptor, or -errno with ERR. */
int tcp_listen(const char *address, struct lc_error *err);

#endif
