/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_queue.c - queues of the file store: batches, more I/O than the depth, odd sizes, errors,
 * kicks, deadlines. Every test runs on io_uring and on libaio: the contract is the same. What the kinds
 * do where the kernel grants less than they ask for is in test_io_fallback.c and test_io_aio.c.
 */
#include "test_io.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "logcache/rt.h"

/* The kind of queue that the test is about. */
static int kind_setup(void **state)
{
	test_setup(state);
	store_flags = *(const unsigned *)*state;
	return 0;
}

/* Skip the test where the kernel does not even look at the arguments. */
static void need_kind(void **state)
{
	bool uring = *(const unsigned *)*state == LC_FILE_IO_URING;
	long rc = syscall(uring ? SYS_io_uring_setup : SYS_io_setup, 0, NULL);

	if (rc < 0 && (errno == ENOSYS || errno == EPERM))
		SKIP(uring ? "no io_uring here" : "no libaio here");
}

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
	need_kind(state);
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

	need_kind(state);
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

	need_kind(state);
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

	need_kind(state);
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

/* The first part of a read completes while it is submitted, and the rest has to follow. */
static void cut_at_once(void **state)
{
	u8 *buf = lc_alloc(8192);
	struct lc_io io = {.op = LC_IO_READ, .buf = buf, .len_bytes = 8192, .offset_bytes = 65536};
	struct lc_store *s;
	struct lc_queue *q;

	need_kind(state);
	if (!mount_fs("tmpfs", "tmpfs", "size=2m"))
		SKIP("cannot mount a tmpfs, where reads complete at once");
	assert_int_equal(close(creat(path_in_mount("x"), 0600)), 0);
	assert_int_equal(truncate(path_in_mount("x"), 1 << 20), 0);
	s = open_store(path_in_mount("x"));
	assert_int_equal(truncate(path_in_mount("x"), 65536 + 4096), 0);
	q = open_queue(s, 4, NULL, 0);
	lc_queue_submit(q, &io);
	lc_queue_start(q);
	assert_ptr_equal(lc_queue_wait(q, lc_now_ns() + 5 * LC_NS_PER_S), &io);
	assert_int_equal(io.result, -EIO);
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 8192);
	assert_int_equal(umount(mount_point), 0);
}

/* A file system without O_DIRECT: the same, through the page cache. */
static void buffered(void **state)
{
	const u64 size = 4096 * 100 + 17;
	u8 *buf = lc_alloc(4096 * 101);
	struct lc_store *s;
	struct lc_queue *q;

	need_kind(state);
	if (!mount_fs("ramfs", "ramfs", NULL))
		SKIP("cannot mount a ramfs");
	assert_int_equal(lc_file_create(path_in_mount("x"), size, NULL), 0);
	s = open_store(path_in_mount("x"));
	assert_non_null(strstr(log_text, "refuses O_DIRECT"));
	q = open_queue(s, 4, buf, 4096 * 101);
	fill(buf, 4096 * 101, 0, 1);
	one(q, LC_IO_WRITE, buf, 4096 * 101, 0);
	one(q, LC_IO_FLUSH, NULL, 0, 0);
	memset(buf, 0xee, 4096 * 101);
	one(q, LC_IO_READ, buf, 4096 * 101, 0);
	check_filled(buf, size, 0, 1);
	check_zero(buf + size, 4096 * 101 - size);
	lc_queue_close(q);
	lc_store_close(s);
	assert_int_equal(size_of(path_in_mount("x")), size);
	lc_free(buf, 4096 * 101);
	assert_int_equal(umount(mount_point), 0);
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

	need_kind(state);
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

	need_kind(state);
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

	need_kind(state);
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

	need_kind(state);
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

/* nbdkit forks between the opening of the stores and that of the queues that serve. */
static int use_after_fork(void *arg)
{
	u8 *buf = lc_alloc(65536);
	struct lc_io w = {.op = LC_IO_WRITE, .buf = buf, .len_bytes = 65536, .offset_bytes = 65536};
	struct lc_io f = {.op = LC_IO_FLUSH};
	struct lc_queue *q;

	fill(buf, 65536, 65536, 3);
	MUST(lc_queue_open(arg, 4, NULL, 0, &q, NULL) == 0);
	lc_queue_submit(q, &w);
	MUST(lc_queue_wait(q, LC_FOREVER) == &w && w.result == 0);
	lc_queue_submit(q, &f);
	MUST(lc_queue_wait(q, LC_FOREVER) == &f && f.result == 0);
	lc_queue_close(q);
	lc_store_close(arg);
	return 0;
}

static void forked(void **state)
{
	const char *path = make_file("forked", 1 << 20);
	struct lc_store *s = open_store(path);
	u8 *buf = lc_alloc(65536);
	struct lc_queue *q;

	need_kind(state);
	q = open_queue(s, 4, buf, 65536);
	one(q, LC_IO_READ, buf, 65536, 0);
	lc_queue_close(q);
	assert_int_equal(in_child(use_after_fork, s), 0);
	/* The child closed its store; ours has the lock, and works. */
	q = open_queue(s, 4, buf, 65536);
	one(q, LC_IO_READ, buf, 65536, 65536);
	check_filled(buf, 65536, 65536, 3);
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 65536);
}

/* --- no space --- */

/*
 * A sparse file can find its file system full in the middle of a write: it says ENOSPC, which the
 * engine tells from a broken disk, and works again when there is space.
 */
static void fill_up(const char *path, u64 size_bytes)
{
	u8 *buf = lc_alloc(1 << 20);
	struct lc_store *s;
	struct lc_queue *q;
	struct lc_io io = {.op = LC_IO_WRITE, .buf = buf, .len_bytes = 1 << 20};
	unsigned refused = 0;

	assert_int_equal(truncate(path, (off_t)size_bytes), 0);
	s = open_store(path);
	q = open_queue(s, 4, buf, 1 << 20);
	fill(buf, 1 << 20, 0, 1);
	while (io.offset_bytes < size_bytes && !refused) {
		lc_queue_submit(q, &io);
		assert_ptr_equal(lc_queue_wait(q, LC_FOREVER), &io);
		if (io.result == -ENOSPC)
			refused++;
		else
			assert_int_equal(io.result, 0);
		io.offset_bytes += 1 << 20;
	}
	assert_int_equal(refused, 1);
	assert_int_equal(lc_store_write(s, buf, 1 << 20, size_bytes - (1 << 20)), -ENOSPC);
	/* Give the first MiB back: then there is room for it once more. */
	if (s->can_punch) {
		assert_int_equal(lc_store_zero(s, 2 << 20, 0, true), 0);
		assert_int_equal(lc_store_flush(s), 0);
		one(q, LC_IO_WRITE, buf, 1 << 20, 0);
		one(q, LC_IO_FLUSH, NULL, 0, 0);
		one(q, LC_IO_READ, buf, 1 << 20, 0);
		check_filled(buf, 1 << 20, 0, 1);
	}
	lc_queue_close(q);
	lc_store_close(s);
	lc_free(buf, 1 << 20);
}

static void full_tmpfs(void **state)
{
	need_kind(state);
	if (!mount_fs("tmpfs", "tmpfs", "size=5632k"))
		SKIP("cannot mount a tmpfs");
	assert_int_equal(close(creat(path_in_mount("sparse"), 0600)), 0);
	fill_up(path_in_mount("sparse"), 16 << 20);
	assert_int_equal(umount(mount_point), 0);
}

static void full_ext4(void **state)
{
	const char *path = make_file("image", 16 << 20);
	char dev[64];

	need_kind(state);
	if (!attach_loop(path, 512, dev))
		SKIP("no loop devices");
	if (!shell("mkfs.ext4 -q -b 4096 -O ^has_journal %s 2>/dev/null", dev) ||
	    !mount_fs(dev, "ext4", NULL)) {
		detach_loop(dev);
		SKIP("cannot make and mount an ext4");
	}
	assert_int_equal(close(creat(path_in_mount("sparse"), 0600)), 0);
	fill_up(path_in_mount("sparse"), 64 << 20);
	assert_int_equal(umount(mount_point), 0);
	detach_loop(dev);
}

static unsigned uring = LC_FILE_IO_URING, aio = LC_FILE_IO_AIO;

#define BOTH(f)                                            \
	{#f " on io_uring", f, kind_setup, NULL, &uring},  \
	{                                                  \
#f " on libaio", f, kind_setup, NULL, &aio \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(many),	   BOTH(areas),	 BOTH(odd_sizes),      BOTH(errors),
		BOTH(cut_at_once), BOTH(kick),	 BOTH(deadline),       BOTH(poll_only),
		BOTH(buffered),	   BOTH(forked), BOTH(reopen_at_once), BOTH(full_tmpfs),
		BOTH(full_ext4),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
