/* SPDX-License-Identifier: BSD-3-Clause */
/* messages.c - see messages.h. */
#include "messages.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <syslog.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "rt_posix.h"

/* nbdkit sets it before there are threads. */
NBDKIT_DLL_PUBLIC int logcache_debug_engine;

/* Set before there are threads, then constant. */
static bool to_syslog;
static pid_t pid_at_start;

static void to_administrator(enum lc_log_level level, const char *line)
{
	bool warning = level == LC_LOG_WARNING;

	if (to_syslog)
		syslog(LOG_DAEMON | (warning ? LOG_WARNING : LOG_INFO), "logcache: %s%s",
		       warning ? "warning: " : "", line);
	else /* one call, one line: stdio locks the stream */
		fprintf(stderr, "nbdkit: logcache: %s%s\n", warning ? "warning: " : "", line);
}

static void hook(enum lc_log_level level, const char *line)
{
	switch (level) {
	case LC_LOG_DEBUG:
		if (logcache_debug_engine)
			nbdkit_debug("%s", line);
		break;
	case LC_LOG_INFO:
	case LC_LOG_WARNING:
		to_administrator(level, line);
		break;
	case LC_LOG_ERROR:
		nbdkit_error("%s", line);
		break;
	}
}

void messages_init(void)
{
	pid_at_start = getpid();
	lc_log_hook(hook);
}

void messages_after_fork(void)
{
	struct stat st;
	bool closed;

	/* What nbdkit does in the background: standard error becomes /dev/null, unless -v. */
	closed = fstat(STDERR_FILENO, &st) == -1 ||
		 (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
	to_syslog = closed && getpid() != pid_at_start;
}
