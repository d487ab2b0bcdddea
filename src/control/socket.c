/* SPDX-License-Identifier: BSD-3-Clause */
/* socket.c - see socket.h. */
#include "socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "logcache/logcache.h"

#define BACKLOG 64

static const char lock_suffix[] = ".lock";

#define LOCK_PATH_BYTES (sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof lock_suffix)

static void lock_path(char text[LOCK_PATH_BYTES], const char *path)
{
	snprintf(text, LOCK_PATH_BYTES, "%s%s", path, lock_suffix);
}

/* Returns the descriptor that holds the lock, or -errno. */
static int take_lock(const char *path, struct lc_error *err)
{
	char name[LOCK_PATH_BYTES];
	struct stat ours, there;

	lock_path(name, path);
	for (;;) {
		int rc, fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd == -1)
			return lc_fail(err, -errno,
				       "control=%s: cannot create %s: %s; give a path in a folder that "
				       "exists and where the server may write",
				       path, name, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
			rc = errno == EWOULDBLOCK ?
				     lc_fail(err, -EADDRINUSE,
					     "control=%s: another server uses this socket: give each "
					     "one a socket of its own",
					     path) :
				     lc_fail(err, -errno, "control=%s: cannot lock %s: %s", path,
					     name, strerror(errno));
			close(fd);
			return rc;
		}
		/* Its last owner may have removed the file between our open and our lock. */
		if (fstat(fd, &ours) == 0 && stat(name, &there) == 0 &&
		    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
			return fd;
		close(fd);
	}
}

/* Does somebody answer at this socket? */
static bool answers(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes;

	if (fd == -1)
		return true; /* rather not remove what we cannot ask */
	yes = connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno != ECONNREFUSED;
	close(fd);
	return yes;
}

/* Nobody of our kind uses the path now. */
static int remove_stale(const struct sockaddr_un *addr, struct lc_error *err)
{
	const char *path = addr->sun_path;
	struct stat st;

	if (lstat(path, &st) == -1)
		return 0; /* bind() says what else is wrong */
	if (!S_ISSOCK(st.st_mode))
		return lc_fail(err, -EADDRINUSE,
			       "control=%s: there is something else, not a socket: correct the path, "
			       "or remove it",
			       path);
	if (answers(addr))
		return lc_fail(err, -EADDRINUSE,
			       "control=%s: another program uses this socket: give another path",
			       path);
	if (unlink(path) == -1 && errno != ENOENT)
		return lc_fail(err, -errno,
			       "control=%s: cannot remove the socket that a killed server left: %s",
			       path, strerror(errno));
	lc_log(LC_LOG_INFO, "control=%s: replacing the socket that a killed server left", path);
	return 0;
}

static int bind_and_listen(struct unix_socket *s, const struct sockaddr_un *addr, struct lc_error *err)
{
	struct stat st;
	mode_t before;
	int rc;

	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd == -1)
		return lc_fail(err, -errno, "control=%s: %s", s->path, strerror(errno));
	/* Not chmod() afterwards: there would be a moment in which others may connect. */
	before = umask(0177);
	rc = bind(s->fd, (const struct sockaddr *)addr, sizeof *addr);
	umask(before);
	if (rc == 0)
		rc = listen(s->fd, BACKLOG);
	if (rc == 0)
		rc = lstat(s->path, &st);
	if (rc == 0) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	} else {
		rc = lc_fail(err, -errno, "control=%s: %s", s->path, strerror(errno));
		close(s->fd);
		s->fd = -1;
	}
	return rc;
}

int unix_socket_open(struct unix_socket *s, const char *path, struct lc_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int rc;

	*s = (struct unix_socket){.path = path, .fd = -1, .lock_fd = -1};
	if (strlen(path) >= sizeof addr.sun_path)
		return lc_fail(err, -ENAMETOOLONG,
			       "control=%s: the path of a socket has at most %zu bytes: give a "
			       "shorter one",
			       path, sizeof addr.sun_path - 1);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	rc = take_lock(path, err);
	if (rc < 0)
		return rc;
	s->lock_fd = rc;
	rc = remove_stale(&addr, err);
	if (rc == 0)
		rc = bind_and_listen(s, &addr, err);
	if (rc < 0) {
		/* What is at the path is not ours. */
		char name[LOCK_PATH_BYTES];

		lock_path(name, path);
		unlink(name);
		close(s->lock_fd);
		s->lock_fd = -1;
	}
	return rc;
}

/* With the lock in hand. Best effort: after a change of user the folder may not be ours. The next server replaces them. */
static void remove_files(const struct unix_socket *s)
{
	char name[LOCK_PATH_BYTES];
	struct stat st;

	if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	lock_path(name, s->path);
	unlink(name);
}

void unix_socket_close(struct unix_socket *s)
{
	if (s->lock_fd == -1)
		return;
	remove_files(s);
	if (s->fd != -1)
		close(s->fd);
	close(s->lock_fd); /* last: until then nobody else comes near */
	s->fd = s->lock_fd = -1;
}

void unix_socket_abandon(struct unix_socket *s)
{
	struct lc_error err;

	if (s->lock_fd == -1)
		return;
	/* The lock belongs to the open file: who has inherited it still holds it, and we cannot take it again. */
	close(s->lock_fd);
	s->lock_fd = take_lock(s->path, &err);
	if (s->lock_fd < 0)
		return;
	remove_files(s);
	close(s->lock_fd);
	s->lock_fd = -1;
}

/* --- TCP --- */

static int wrong_address(const char *address, struct lc_error *err)
{
	return lc_fail(err, -EINVAL,
		       "metrics=%s: must be PORT, HOST:PORT or [IPV6]:PORT, with a port from 1 to 65535",
		       address);
}

int address_split(const char *address, char host[HOST_BYTES], char port[PORT_BYTES],
		  struct lc_error *err)
{
	const char *colon = strrchr(address, ':');
	const char *number = colon ? colon + 1 : address;
	const char *from = address;
	size_t n = colon ? (size_t)(colon - address) : 0;

	if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
		from++;
		n -= 2;
	} else if (memchr(from, ':', n)) {
		return wrong_address(address, err); /* an IPv6 address without brackets */
	}
	if (n >= HOST_BYTES || !number[0] || strlen(number) >= PORT_BYTES ||
	    strspn(number, "0123456789") != strlen(number) || strtoul(number, NULL, 10) < 1 ||
	    strtoul(number, NULL, 10) > 65535)
		return wrong_address(address, err);
	memcpy(host, from, n);
	host[n] = '\0';
	if (!n)
		memcpy(host, "127.0.0.1", sizeof "127.0.0.1");
	memcpy(port, number, strlen(number) + 1);
	return 0;
}

static int listen_at(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
			ai->ai_protocol);
	int one = 1, rc;

	if (fd == -1)
		return -errno;
	/* Connections of a former server may linger for a minute. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == -1 ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) == -1 || listen(fd, BACKLOG) == -1) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

int tcp_listen(const char *address, struct lc_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
	char host[HOST_BYTES], port[PORT_BYTES];
	int rc = address_split(address, host, port, err);

	if (rc < 0)
		return rc;
	rc = getaddrinfo(host, port, &hints, &found);
	if (rc)
		return lc_fail(err, -EADDRNOTAVAIL,
			       "metrics=%s: %s: %s; give a name or address of this machine, or PORT alone "
			       "for 127.0.0.1",
			       address, host, gai_strerror(rc));
	rc = listen_at(found); /* a name with several addresses: the first one */
	freeaddrinfo(found);
	if (rc < 0)
		return lc_fail(err, rc,
			       "metrics=%s: %s: give an address of this machine, and a port that is free",
			       address, strerror(-rc));
	return rc;
}
