/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_fallback.c - queues of the file store where the kernel or the administrator grants less
 * than they would like: older kernels, no io_uring, neither kind, little locked memory, no root.
 *
 * This program puts itself between src/io and liburing, so that the kernel seems older than it is.
 * What can be said no more (seccomp) or is the whole machine's (sysctl) happens in children.
 */
#include "test_io.h"

#include <dlfcn.h>
#include <liburing.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "logcache/rt.h"

/* How many of the kinds of rings that are asked for, the best first, this kernel does not know. */
static unsigned rings_unknown;

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *p)
{
	static unsigned asked;
	int (*real)(unsigned, struct io_uring *, struct io_uring_params *);

	if (asked++ < rings_unknown)
		return -EINVAL;
	asked = 0;
	*(void **)&real = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
	return real(entries, ring, p);
}

static bool have_uring(void)
{
	return syscall(SYS_io_uring_setup, 0, NULL) < 0 && errno != ENOSYS && errno != EPERM;
}

/* Open a queue and move some data through it. In a child. */
static int work(struct lc_store *s, struct lc_error *err)
{
	enum { N = 64 };
	u8 *buf = lc_alloc(N * 4096);
	struct lc_area area = {buf, N * 4096};
	struct lc_io ios[N];
	struct lc_queue *q;

	if (err)
		err->text[0] = '\0';
	if (lc_queue_open(s, 8, &area, 1, &q, err)) {
		lc_free(buf, N * 4096);
		return 2;
	}
	fill(buf, N * 4096, 0, 1);
	for (unsigned round = 0; round < 2; round++) {
		unsigned got = 0;

		for (unsigned i = 0; i < N; i++) {
			ios[i] = (struct lc_io){
				.op = round ? LC_IO_READ : LC_IO_WRITE,
				.buf = buf + i * 4096,
				.len_bytes = 4096,
				.offset_bytes = i * 4096,
			};
			lc_queue_submit(q, &ios[i]);
		}
		while (got < N) {
			struct lc_io *io = lc_queue_wait(q, LC_FOREVER);

			for (; io; io = io->next, got++)
				MUST(io->result == 0);
		}
		ios[0] = (struct lc_io){.op = LC_IO_FLUSH};
		lc_queue_submit(q, &ios[0]);
		MUST(lc_queue_wait(q, LC_FOREVER) == &ios[0] && ios[0].result == 0);
		if (round == 0)
			memset(buf, 0, N * 4096);
	}
	for (unsigned i = 0; i < N * 4096; i++)
		MUST(buf[i] == pattern(i, 1));
	lc_queue_close(q);
	lc_free(buf, N * 4096);
	return 0;
}

static unsigned times_said(const char *words)
{
	unsigned n = 0;

	for (const char *p = log_text; (p = strstr(p, words)); p++)
		n++;
	return n;
}

/* --- older kernels --- */

static void older_rings(void **state)
{
	struct lc_store *s;

	(void)state;
	if (!have_uring())
		SKIP("no io_uring here");
	store_flags = LC_FILE_IO_URING;
	s = open_store(make_file("older", 1 << 20));
	for (rings_unknown = 0; rings_unknown < 3; rings_unknown++)
		assert_int_equal(work(s, NULL), 0);
	rings_unknown = 0;
	lc_store_close(s);
}

/*
 * On these kernels completions may arrive at any time. Once wait() found the first part of a read
 * before it slept, put the rest into the FIFO, and slept without sending it: until the next kick,
 * or for ever.
 */
static void cut_before_wait(void **state)
{
	const char *path = make_file("cut", 1 << 20);
	u8 *buf = lc_alloc(8192);
	struct lc_io io = {.op = LC_IO_READ, .buf = buf, .len_bytes = 8192, .offset_bytes = 65536};
	struct lc_store *s;
	struct lc_queue *q;

	(void)state;
	if (!have_uring())
		SKIP("no io_uring here");
	store_flags = LC_FILE_IO_URING;
	s = open_store(path);
	assert_int_equal(truncate(path, 65536 + 4096), 0);
	for (rings_unknown = 1; rings_unknown < 3; rings_unknown++) {
		assert_int_equal(lc_queue_open(s, 4, NULL, 0, &q, NULL), 0);
		lc_queue_submit(q, &io);
		lc_queue_start(q);
		usleep(50000);
		assert_ptr_equal(lc_queue_wait(q, lc_now_ns() + 5 * LC_NS_PER_S), &io);
		assert_int_equal(io.result, -EIO);
		lc_queue_close(q);
	}
	rings_unknown = 0;
	lc_store_close(s);
	lc_free(buf, 8192);
}

/* --- no io_uring --- */

struct refusal {
	int nr; /* what is forbidden */
	int err;
	const char *word; /* which the message has */
};

static const struct refusal no_uring[] = {
	{SYS_io_uring_setup, EPERM, "seccomp filter"},
	{SYS_io_uring_setup, ENOSYS, "seccomp filter"},
	{SYS_io_uring_setup, ENOMEM, "locked memory"},
	/* Rings may be made, but not used. */
	{SYS_io_uring_enter, EPERM, "seccomp filter"},
};

/* Two stores, several queues: everything works, and one line says why it is libaio. */
static int fall_back(void *arg)
{
	const struct refusal *r = arg;
	struct lc_store *s, *t;

	if (!deny(r->nr, -1, 0, r->err))
		return CHILD_SKIPS;
	MUST(lc_file_open(path_of("a"), 0, &s, NULL) == 0);
	MUST(lc_file_open(path_of("b"), 0, &t, NULL) == 0);
	MUST(work(s, NULL) == 0);
	MUST(work(t, NULL) == 0);
	MUST(work(s, NULL) == 0);
	MUST(times_said("libaio is used instead") == 1);
	MUST(strstr(log_text, r->word) && strstr(log_text, strerror(r->err)));
	MUST(strstr(log_text, path_of("a")));
	return 0;
}

/* Whoever asks for io_uring by name gets it, or an error. */
static int insist(void *arg)
{
	const struct refusal *r = arg;
	struct lc_error err;
	struct lc_store *s;

	if (!deny(r->nr, -1, 0, r->err))
		return CHILD_SKIPS;
	MUST(lc_file_open(path_of("a"), LC_FILE_IO_URING, &s, NULL) == 0);
	MUST(work(s, &err) == 2);
	MUST(strstr(err.text, path_of("a")) && strstr(err.text, "io_uring is not available"));
	MUST(strstr(err.text, r->word) && strstr(err.text, strerror(r->err)));
	MUST(strstr(err.text, "io=libaio"));
	MUST(log_text[0] == '\0');
	/* And NULL for the error is fine. */
	MUST(work(s, NULL) == 2);
	lc_store_close(s);
	MUST(lc_file_open(path_of("a"), LC_FILE_IO_AIO, &s, NULL) == 0);
	MUST(work(s, &err) == 0);
	MUST(log_text[0] == '\0');
	return 0;
}

static int neither(void *arg)
{
	struct lc_error err;
	struct lc_store *s;

	(void)arg;
	if (!deny(SYS_io_uring_setup, -1, 0, EPERM) || !deny(SYS_io_setup, -1, 0, EAGAIN))
		return CHILD_SKIPS;
	MUST(lc_file_open(path_of("a"), 0, &s, NULL) == 0);
	MUST(work(s, &err) == 2);
	MUST(strstr(err.text, "fs.aio-max-nr") && strstr(err.text, "seccomp"));
	lc_store_close(s);
	MUST(lc_file_open(path_of("a"), LC_FILE_IO_AIO, &s, NULL) == 0);
	MUST(work(s, &err) == 2);
	MUST(strstr(err.text, "fs.aio-max-nr") && !strstr(err.text, "io_uring"));
	return 0;
}

static void in_filtered_child(int (*fn)(void *), const struct refusal *r)
{
	int rc;

	make_file("a", 1 << 20);
	make_file("b", 1 << 20);
	rc = in_child(fn, (void *)(uintptr_t)r);
	if (rc == CHILD_SKIPS)
		SKIP("no seccomp filters here");
	assert_int_equal(rc, 0);
}

static void automatic(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(no_uring) / sizeof(no_uring[0]); i++)
		in_filtered_child(fall_back, &no_uring[i]);
}

static void by_name(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(no_uring) / sizeof(no_uring[0]); i++)
		in_filtered_child(insist, &no_uring[i]);
}

static void no_kind(void **state)
{
	(void)state;
	in_filtered_child(neither, NULL);
}

/* --- kernel.io_uring_disabled --- */

#define SYSCTL "/proc/sys/kernel/io_uring_disabled"

static bool set_sysctl(char value)
{
	int fd = open(SYSCTL, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, &value, 1) == 1;

	if (fd >= 0)
		close(fd);
	return ok;
}

static int unprivileged(void *arg)
{
	(void)arg;
	MUST(setgid(65534) == 0 && setuid(65534) == 0);
	MUST(work(open_store(path_of("s")), NULL) == 0);
	MUST(times_said("kernel.io_uring_disabled is 1") == 1);
	MUST(times_said("io_uring_group") == 1);
	return 0;
}

/* 1 forbids io_uring to the unprivileged: nobody else on this machine notices this test. */
static void sysctl_1(void **state)
{
	const char *path;
	char before = '?';
	int fd, rc;

	(void)state;
	fd = open(SYSCTL, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, &before, 1) != 1)
			before = '?';
		close(fd);
	}
	if (before != '0' || geteuid() != 0)
		SKIP("not root, or no kernel.io_uring_disabled that is 0");
	path = make_file("s", 1 << 20);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(chmod(dir, 0755), 0);
	if (!set_sysctl('1'))
		SKIP("cannot set kernel.io_uring_disabled");
	rc = in_child(unprivileged, NULL);
	assert_true(set_sysctl(before));
	assert_int_equal(rc, 0);
}

/* 2 forbids it to everybody, so it is only played: a file over the file, in a namespace. */
static int disabled(void *arg)
{
	(void)arg;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(path_of("two"), SYSCTL, NULL, MS_BIND, NULL) < 0)
		return CHILD_SKIPS;
	if (!deny(SYS_io_uring_setup, -1, 0, EPERM))
		return CHILD_SKIPS;
	MUST(work(open_store(path_of("s")), NULL) == 0);
	MUST(times_said("kernel.io_uring_disabled is 2") == 1);
	return 0;
}

static void sysctl_2(void **state)
{
	FILE *p;
	int rc;

	(void)state;
	p = fopen(path_of("two"), "w");
	fputs("2\n", p);
	fclose(p);
	make_file("s", 1 << 20);
	rc = in_child(disabled, NULL);
	if (rc == CHILD_SKIPS)
		SKIP("no namespaces, no seccomp, or no kernel.io_uring_disabled");
	assert_int_equal(rc, 0);
}

/* --- a user's limits --- */

static int work_without_memlock(void *arg)
{
	struct rlimit limit = {64 << 10, 64 << 10};
	struct lc_store *s = arg;
	struct lc_area area = {lc_alloc(4 << 20), 4 << 20};
	struct lc_queue *q;

	MUST(setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
	for (unsigned i = 0; i < 2; i++) {
		struct lc_io io = {.op = LC_IO_WRITE, .buf = area.base, .len_bytes = 1 << 20};

		MUST(lc_queue_open(s, 8, &area, 1, &q, NULL) == 0);
		lc_queue_submit(q, &io);
		MUST(lc_queue_wait(q, LC_FOREVER) == &io && io.result == 0);
		lc_queue_close(q);
	}
	/* One message, however many queues. */
	MUST(times_said("LimitMEMLOCK") == 1);
	return 0;
}

static void no_memlock(void **state)
{
	struct lc_store *s;

	(void)state;
	if (geteuid() != 0 || !have_uring())
		SKIP("not root, or no io_uring");
	s = open_store(make_file("memlock", 4 << 20));
	assert_int_equal(in_child(work_without_memlock, s), 0);
	lc_store_close(s);
}

/* Everything as a user who owns nothing but a folder: create, open, both kinds of queues, zero. */
static int work_as_nobody(void *arg)
{
	static const unsigned kinds[] = {0, LC_FILE_IO_URING, LC_FILE_IO_AIO};
	struct rlimit limit = {8 << 20, 8 << 20};
	const char *path = path_of("nobody/file");
	struct lc_area area = {lc_alloc(16 << 20), 16 << 20};
	struct lc_extent e;
	struct lc_store *s;
	struct lc_queue *q;

	(void)arg;
	MUST(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	MUST(setgid(65534) == 0 && setuid(65534) == 0);
	MUST(lc_file_create(path, 4 << 20, NULL) == 0);
	for (unsigned i = 0; i < 3; i++) {
		if (kinds[i] == LC_FILE_IO_URING && !have_uring())
			continue;
		MUST(lc_file_open(path, kinds[i], &s, NULL) == 0);
		MUST(work(s, NULL) == 0);
		/* Areas beyond the limit on locked memory. */
		MUST(lc_queue_open(s, 8, &area, 1, &q, NULL) == 0);
		lc_queue_close(q);
		if (s->can_punch) {
			MUST(lc_store_zero(s, 1 << 20, 0, true) == 0);
			MUST(lc_store_extent(s, 4 << 20, 0, &e) == 0);
			MUST(e.hole && e.len_bytes == 1 << 20);
		}
		lc_store_close(s);
	}
	return 0;
}

static void as_nobody(void **state)
{
	const char *path = path_of("nobody");

	(void)state;
	if (geteuid() != 0)
		SKIP("not root: all tests run as a user");
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chown(path, 65534, 65534), 0);
	assert_int_equal(in_child(work_as_nobody, NULL), 0);
}

#define TEST(f) cmocka_unit_test_setup(f, test_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(older_rings), TEST(cut_before_wait), TEST(automatic),
		TEST(by_name),	   TEST(no_kind),	  TEST(sysctl_1),
		TEST(sysctl_2),	   TEST(no_memlock),	  TEST(as_nobody),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
