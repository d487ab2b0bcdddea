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
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
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
/* What open_store() adds to the flags: the kind of queue that a test is about. */
static unsigned store_flags;

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
	store_flags = 0;
	return 0;
}

/* Skip, and say why. skip() does not return, which cmocka keeps from the compiler. */
#define SKIP(reason)                                    \
	do {                                            \
		print_message("skipped: %s\n", reason); \
		skip();                                 \
		abort();                                \
	} while (0)

/* In a child, where cmocka's assertions do not work: what is not so ends it with 1. */
#define MUST(x)                                                                         \
	do {                                                                            \
		if (!(x)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
			return 1;                                                       \
		}                                                                       \
	} while (0)
#define CHILD_SKIPS 77

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
	int rc = lc_file_open(path, store_flags, &s, &err);

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

/* From now on system call NR (if ARG >= 0: with this argument of VALUE) fails with ERR. */
static __attribute__((unused)) bool deny(int nr, int arg, unsigned value, int err)
{
	const unsigned arg_at = offsetof(struct seccomp_data, args) + 8u * (arg < 0 ? 0 : (u32)arg);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (u32)nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arg_at), /* its lower half */
		BPF_JUMP(BPF_JMP | (arg < 0 ? BPF_JGE : BPF_JEQ) | BPF_K, arg < 0 ? 0 : value, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (u32)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

/* --- small file systems and devices of a test's own, where root may have them --- */

static __attribute__((unused)) bool shell(const char *fmt, ...)
{
	char cmd[1024] = "PATH=$PATH:/sbin:/usr/sbin; ";
	size_t n = strlen(cmd);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd + n, sizeof(cmd) - n, fmt, ap);
	va_end(ap);
	return system(cmd) == 0;
}

static char mount_point[300];

static __attribute__((unused)) bool mount_fs(const char *what, const char *type, const char *options)
{
	snprintf(mount_point, sizeof(mount_point), "%s/mnt", dir);
	mkdir(mount_point, 0755); /* may exist from an earlier test */
	return geteuid() == 0 && mount(what, mount_point, type, 0, options) == 0;
}

static __attribute__((unused)) const char *path_in_mount(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", mount_point, name);
	return path;
}

/* A loop device over the file PATH, with sectors of this size: false where there are none. */
static __attribute__((unused)) bool attach_loop(const char *path, unsigned sector_bytes, char dev[64])
{
	char cmd[700];
	FILE *p;

	dev[0] = '\0';
	if (geteuid() != 0)
		return false;
	snprintf(cmd, sizeof(cmd),
		 "PATH=$PATH:/sbin:/usr/sbin; losetup -P -f --show -b %u '%s' 2>/dev/null",
		 sector_bytes, path);
	p = popen(cmd, "r");
	if (fgets(dev, 64, p))
		dev[strcspn(dev, "\n")] = '\0';
	pclose(p);
	return dev[0] != '\0';
}

static __attribute__((unused)) void detach_loop(const char *dev)
{
	assert_true(shell("losetup -d %s", dev));
}

#endif
