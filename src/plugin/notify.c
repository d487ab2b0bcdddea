/* SPDX-License-Identifier: BSD-3-Clause */
/* notify.c - see notify.h. */
#include "notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "logcache/rt.h"

void notify_systemd(const char *lines, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	char text[256];
	va_list args;
	int fd;

	if ((n < 2 || n >= sizeof to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(to.sun_path, path, n);
	if (to.sun_path[0] == '@')
		to.sun_path[0] = '\0'; /* the abstract namespace */
	va_start(args, lines);
	vsnprintf(text, sizeof text, lines, args);
	va_end(args);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
			       offsetof(struct sockaddr_un, sun_path) + n) == -1)
		lc_log(LC_LOG_WARNING, "cannot tell systemd (%s): %m", path);
	if (fd != -1)
		close(fd);
}
