/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io.h - what the tests of src/io share: temporary files, patterns, captured log lines.
 *
 * Each program includes it once; everything is static. Files live in a folder of their own under
 * $TMPDIR (default /tmp), which the group's teardown removes.
 */
#ifndef LOGCACHE_TEST_IO_H
#define LOGCACHE_TEST_IO_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "file.h"
#include "file_priv.h"
#include "rt_posix.h"

static char dir[256];
static char log_text[16384];
static struct lc_mutex log_mutex;

/* The engine has the real one; weak, so that the test links with and without the engine. */
__attribute__((weak, format(printf, 3, 4))) int lc_fail(struct lc_error *err, int code,
							const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return code;
}

static void capture(enum lc_log_level level, const char *line)
{
	size_t n;

	(void)level; /* the tests look at words */
	lc_mutex_lock(&log_mutex);
	n = strlen(log_text);
	snprintf(log_text + n, sizeof(log_text) - n, "%s\n", line);
	lc_mutex_unlock(&log_mutex);
}

static int group_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%s/logcache-test-io.XXXXXX", tmp ? tmp : "/tmp");
	lc_mutex_init(&log_mutex);
	lc_log_hook(capture);
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	char cmd[300];

	(void)state;
	lc_log_hook(NULL);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	return system(cmd);
}

static int test_setup(void **state)
{
	(void)state;
	log_text[0] = '\0';
	return 0;
}

/* A path in the folder; four can be in use at a time. */
static __attribute__((unused)) const char *path_of(const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
	return p;
}

/* What the byte at OFFSET holds in round SEED. */
static __attribute__((unused)) u8 pattern(u64 offset, unsigned seed)
{
	u64 x = (offset + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1342543de82ef95ull;

	return (u8)(x >> 40) | 1; /* never zero */
}

static __attribute__((unused)) void fill(u8 *buf, u64 n, u64 offset, unsigned seed)
{
	for (u64 i = 0; i < n; i++)
		buf[i] = pattern(offset + i, seed);
}

static __attribute__((unused)) void check_filled(const u8 *buf, u64 n, u64 offset, unsigned seed)
{
	for (u64 i = 0; i < n; i++)
		if (buf[i] != pattern(offset + i, seed))
			fail_msg("byte %llu is wrong", (unsigned long long)(offset + i));
}

static __attribute__((unused)) void check_zero(const u8 *buf, u64 n)
{
	for (u64 i = 0; i < n; i++)
		if (buf[i])
			fail_msg("byte %llu is not zero", (unsigned long long)i);
}

/* A written file of N zeros. */
static __attribute__((unused)) const char *make_file(const char *name, u64 n)
{
	const char *path = path_of(name);
	u8 zeros[4096] = {0};
	FILE *p = fopen(path, "w");

	assert_non_null(p);
	for (u64 at = 0; at < n; at += sizeof(zeros)) {
		size_t k = n - at < sizeof(zeros) ? n - at : sizeof(zeros);

		assert_int_equal(fwrite(zeros, 1, k, p), k);
	}
	assert_int_equal(fclose(p), 0);
	return path;
}

static __attribute__((unused)) u64 size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_size;
}

static __attribute__((unused)) struct lc_store *open_store(const char *path)
{
	struct lc_error err = {0};
	struct lc_store *s = NULL;
	int rc = lc_file_open(path, 0, &s, &err);

	if (rc)
		fail_msg("open: %d: %s", rc, err.text);
	return s;
}

/* Run FN(ARG) in a child process; 0 if it returned 0. */
static __attribute__((unused)) int in_child(int (*fn)(void *), void *arg)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

#endif
