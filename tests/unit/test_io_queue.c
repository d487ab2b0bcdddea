/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_queue.c - queues of the file store: batches, more I/O than the depth, odd sizes, kicks,
 * deadlines, and what happens where the kernel grants less than we ask for.
 */
#include "test_io.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "logcache/rt.h"

static struct lc_queue *open_queue(struct lc_store *s, unsigned depth, void *area, size_t n)
{
	struct lc_area areas = {area, n};
	struct lc_queue *q = NULL;

	assert_int_equal(lc_queue_open(s, depth, &areas, area ? 1 : 0, &q, NULL), 0);
	return q;
}

/* Reap N I/Os; all of them must have succeeded. */
static void reap(struct lc_queue *q, unsigned n)
{
	unsigned got = 0;

	while (got < n) {
		struct lc_io *io = lc_queue_wait(q, LC_FOREVER);

		for (; io; io = io->next) {
			assert_int_equal(io->result, 0);
			got++;
		}
	}
	assert_int_equal(got, n);
}

static void one(struct lc_queue *q, enum lc_io_op op, void *buf, u32 n, u64 offset)
{
	struct lc_io io = {.op = op, .buf = buf, .len_bytes = n, .offset_bytes = offset};

	lc_queue_submit(q, &io);
	reap(q, 1);
}

/* Many more I/Os than the depth, from registered memory and from memory that nobody registered. */
static void batch(bool registered, unsigned depth)
{
	enum { N = 500 };
	const char *path = make_file("batch", N * 4096);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(N * 4096);
	struct lc_io *ios = calloc(N, sizeof(*ios));
	struct lc_queue *q = open_queue(s, depth, registered ? buf : NULL, N * 4096);

	fill(buf, N * 4096, 0, 1);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++) {
			unsigned at = i * 7 % N;

			ios[i] = (struct lc_io){
				.op = round ? LC_IO_READ : LC_IO_WRITE,
				.buf = buf + at * 4096,
				.len_bytes = 4096,
				.offset_bytes = at * 4096,
			};
			lc_queue_submit(q, &ios[i]);
			if (i % 100 == 50)
				lc_queue_start(q);
		}
		reap(q, N);
		one(q, LC_IO_FLUSH, NULL, 0, 0);
		if (!round)
			memset(buf, 0, N * 4096);
	}
	check_filled(buf, N * 4096, 0, 1);
	assert_null(lc_queue_wait(q, 0));
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, N * 4096);
	free(ios);
	assert_int_equal(size_of(path), N * 4096);
}

static void many(void **state)
{
	(void)state;
	batch(true, 8);
	batch(false, 8);
	batch(true, 1);
	batch(true, 1000);
}

/* Areas of which an I/O covers only a part, none, or more than one. */
static void areas(void **state)
{
	const char *path = make_file("areas", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(1 << 20);
	struct lc_area a[2] = {{buf, 65536}, {buf + 65536, 65536}};
	struct lc_queue *q;

	(void)state;
	assert_int_equal(lc_queue_open(s, 4, a, 2, &q, NULL), 0);
	fill(buf, 1 << 20, 0, 2);
	one(q, LC_IO_WRITE, buf, 1 << 20, 0);
	memset(buf, 0, 1 << 20);
	one(q, LC_IO_READ, buf, 65536, 0);
	one(q, LC_IO_READ, buf + 65536, 65536, 65536);
	one(q, LC_IO_READ, buf + 131072, (1 << 20) - 131072, 131072);
	check_filled(buf, 1 << 20, 0, 2);
	memset(buf, 0, 1 << 20);
	one(q, LC_IO_READ, buf + 32768, 65536, 32768);
	check_filled(buf + 32768, 65536, 32768, 2);
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 1 << 20);
}

static void odd_sizes(void **state)
{
	static const u64 sizes[] = {511, 512 * 5, 4096 * 3 + 17, 4096 + 4095};
	u8 *buf = lc_alloc(32768);

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		u64 size = sizes[i];
		u32 whole = (u32)((size + 4095) / 4096 * 4096);
		const char *path = make_file("odd", size);
		struct lc_store *s = open_store(path);
		struct lc_queue *q = open_queue(s, 4, buf, 32768);

		fill(buf, whole, 0, i);
		one(q, LC_IO_WRITE, buf, whole, 0);
		one(q, LC_IO_FLUSH, NULL, 0, 0);
		memset(buf, 0xee, whole);
		one(q, LC_IO_READ, buf, whole, 0);
		check_filled(buf, size, 0, i);
		check_zero(buf + size, whole - size);
		fill(buf, 4096, whole - 4096, i + 9);
		one(q, LC_IO_WRITE, buf, 4096, whole - 4096);
		/* The synchronous way sees the same. */
		assert_int_equal(lc_store_read(s, buf, 4096, whole - 4096), 0);
		check_filled(buf, size - (whole - 4096), whole - 4096, i + 9);
		check_zero(buf + size - (whole - 4096), whole - size);
		lc_queue_close(q);
		lc_store_close(s);
		assert_int_equal(size_of(path), size);
	}
	lc_free(buf, 32768);
}

static void errors(void **state)
{
	const char *path = make_file("errors", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(8192);
	struct lc_queue *q = open_queue(s, 4, buf, 8192);
	struct lc_io io = {.op = LC_IO_READ, .buf = buf, .len_bytes = 8192, .offset_bytes = 65536};
	struct lc_io *got;

	(void)state;
	/* The file ends in the middle of the I/O: the first half comes, the rest never does. */
	assert_int_equal(truncate(path, 65536 + 4096), 0);
	lc_queue_submit(q, &io);
	got = lc_queue_wait(q, LC_FOREVER);
	assert_ptr_equal(got, &io);
	assert_null(got->next);
	assert_int_equal(io.result, -EIO);
	assert_non_null(strstr(log_text, "it shrank"));
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 8192);
}

/* --- kick and deadline --- */

struct kicker {
	struct lc_queue *q;
	unsigned pause_ms;
	unsigned times;
};

static void kick_main(void *arg)
{
	struct kicker *k = arg;

	for (unsigned i = 0; i < k->times; i++) {
		usleep(k->pause_ms * 1000);
		lc_queue_kick(k->q);
	}
}

static void kick(void **state)
{
	const char *path = make_file("kick", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(4096);
	struct lc_queue *q = open_queue(s, 4, NULL, 0);
	struct kicker k = {q, 30, 1};
	struct lc_thread t;
	u64 start_ns;

	(void)state;
	/* During the wait; before the wait; several become one. */
	start_ns = lc_now_ns();
	assert_int_equal(lc_thread_start(&t, "test-kick", kick_main, &k), 0);
	assert_null(lc_queue_wait(q, LC_FOREVER));
	assert_true(lc_now_ns() - start_ns >= 25 * LC_NS_PER_MS);
	lc_thread_join(&t);
	lc_queue_kick(q);
	assert_null(lc_queue_wait(q, LC_FOREVER));
	lc_queue_kick(q);
	lc_queue_kick(q);
	assert_null(lc_queue_wait(q, LC_FOREVER));
	/* A kick does not get lost beside I/O, nor I/O beside a kick. */
	lc_queue_kick(q);
	one(q, LC_IO_READ, buf, 4096, 0);
	k = (struct kicker){q, 0, 2000};
	assert_int_equal(lc_thread_start(&t, "test-kick", kick_main, &k), 0);
	for (unsigned i = 0; i < 2000; i++)
		one(q, LC_IO_READ, buf, 4096, 4096 * (i % 256));
	lc_thread_join(&t);
	lc_queue_close(q);
	/* Closing with a kick that nobody waited for. */
	q = open_queue(s, 4, NULL, 0);
	lc_queue_kick(q);
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 4096);
}

static void on_alarm(int sig)
{
	(void)sig; /* it shall only interrupt system calls */
}

static void deadline(void **state)
{
	const char *path = make_file("deadline", 1 << 20);
	struct lc_store *s = open_store(path);
	struct lc_queue *q = open_queue(s, 4, NULL, 0);
	struct sigaction sa = {.sa_handler = on_alarm};
	struct itimerval every = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
	u64 start_ns = lc_now_ns();

	(void)state;
	assert_null(lc_queue_wait(q, 0));
	assert_null(lc_queue_wait(q, 1));
	assert_true(lc_now_ns() - start_ns < 100 * LC_NS_PER_MS);
	start_ns = lc_now_ns();
	assert_null(lc_queue_wait(q, start_ns + 50 * LC_NS_PER_MS));
	assert_true(lc_now_ns() >= start_ns + 50 * LC_NS_PER_MS);
	/* Signals do not end a wait early. */
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	start_ns = lc_now_ns();
	assert_null(lc_queue_wait(q, start_ns + 50 * LC_NS_PER_MS));
	assert_true(lc_now_ns() >= start_ns + 50 * LC_NS_PER_MS);
	setitimer(ITIMER_REAL, &never, NULL);
	lc_queue_close(q);
	lc_store_close(s);
}

/* With DEFER_TASKRUN completions only come to who asks the kernel: a deadline of 0 must ask. */
static void poll_only(void **state)
{
	const char *path = make_file("poll", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(1 << 20);
	struct lc_queue *q = open_queue(s, 4, buf, 1 << 20);
	struct lc_io io = {.op = LC_IO_WRITE, .buf = buf, .len_bytes = 1 << 20};
	struct lc_io *got = NULL;

	(void)state;
	lc_queue_submit(q, &io);
	lc_queue_start(q);
	for (unsigned i = 0; i < 2000 && !got; i++) {
		got = lc_queue_wait(q, 0);
		if (!got)
			usleep(1000);
	}
	assert_ptr_equal(got, &io);
	assert_int_equal(io.result, 0);
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 1 << 20);
}

/*
 * The kernel tears rings down in the background. If that kept the file, its lock would outlive the
 * store for some milliseconds, and a server that reopens (or its successor) would be refused.
 */
static void reopen_at_once(void **state)
{
	const char *path = make_file("reopen", 1 << 20);
	u8 *buf = lc_alloc(1 << 20);

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		struct lc_store *s = open_store(path);
		struct lc_queue *q = open_queue(s, 8, buf, 1 << 20);

		one(q, LC_IO_WRITE, buf, 65536, 0);
		one(q, LC_IO_FLUSH, NULL, 0, 0);
		lc_queue_close(q);
		lc_store_close(s);
	}
	lc_free(buf, 1 << 20);
}

/* --- less than we ask for --- */

static int work_without_memlock(void *arg)
{
	struct rlimit limit = {64 << 10, 64 << 10};
	struct lc_store *s = arg;
	struct lc_area area = {lc_alloc(4 << 20), 4 << 20};
	struct lc_queue *q;
	char *first;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	for (unsigned i = 0; i < 2; i++) {
		struct lc_io io = {.op = LC_IO_WRITE, .buf = area.base, .len_bytes = 1 << 20};
		struct lc_io *got;

		if (lc_queue_open(s, 8, &area, 1, &q, NULL))
			return 2;
		lc_queue_submit(q, &io);
		got = lc_queue_wait(q, LC_FOREVER);
		if (got != &io || io.result)
			return 3;
		lc_queue_close(q);
	}
	/* One message, however many queues. */
	first = strstr(log_text, "LimitMEMLOCK");
	if (!first)
		return 4;
	return strstr(first + 1, "LimitMEMLOCK") ? 5 : 0;
}

static void no_memlock(void **state)
{
	struct lc_store *s;

	(void)state;
	if (geteuid() != 0)
		skip();
	s = open_store(make_file("memlock", 4 << 20));
	assert_int_equal(in_child(work_without_memlock, s), 0);
	lc_store_close(s);
}

static int open_without_uring(void *arg)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};
	struct lc_queue *q;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return 77;
	if (lc_queue_open(arg, 8, NULL, 0, &q, NULL) != -EPERM)
		return 1;
	return strstr(log_text, "io_uring is not available") ? 0 : 2;
}

static void no_uring(void **state)
{
	struct lc_store *s = open_store(make_file("uring", 1 << 20));
	int rc = in_child(open_without_uring, s);

	(void)state;
	lc_store_close(s);
	if (rc == 77)
		skip();
	assert_int_equal(rc, 0);
}

#define TEST(f) cmocka_unit_test_setup(f, test_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(many),	  TEST(areas),	  TEST(odd_sizes), TEST(errors),
		TEST(kick),	  TEST(deadline), TEST(poll_only), TEST(reopen_at_once),
		TEST(no_memlock), TEST(no_uring),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
