/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_many.c - several reads of a file at once, from any thread: lc_store_read_many() on io_uring, on
 * libaio, and where neither is to be had. The contract is the same in all three.
 *
 * This program puts itself between src/io and the kernel's interfaces, which it lets refuse work.
 */
#include "test_io.h"

#include <dlfcn.h>
#include <libaio.h>
#include <liburing.h>
#include <sys/syscall.h>

#include "logcache/rt.h"

enum { BLOCKS = 200 };

static struct lc_store *s;
static u8 *buf;
static struct lc_io ios[BLOCKS];

/* What the kernel says instead of taking a batch, for so many times. */
static int refusal;
static unsigned refusals;
/* It takes one read of a batch at a time, and refuses none before that. */
static bool one_is_taken;
static unsigned batches;

int io_uring_submit_and_wait(struct io_uring *ring, unsigned nr)
{
	int (*real)(struct io_uring *, unsigned);

	*(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
	__atomic_fetch_add(&batches, 1, __ATOMIC_RELAXED);
	if (refusals) {
		refusals--;
		return refusal;
	}
	return real(ring, nr);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): `ios` are ours */
int io_submit(io_context_t ctx, long nr, struct iocb *iocbs[])
{
	int (*real)(io_context_t, long, struct iocb **);

	*(void **)&real = dlsym(RTLD_NEXT, "io_submit");
	if (__atomic_fetch_add(&batches, 1, __ATOMIC_RELAXED) < one_is_taken)
		return real(ctx, 1, iocbs);
	if (refusals) {
		refusals--;
		return refusal;
	}
	return real(ctx, one_is_taken ? 1 : nr, iocbs);
}

static bool have(unsigned kind)
{
	long rc = syscall(kind == LC_FILE_IO_URING ? SYS_io_uring_setup : SYS_io_setup, 0, NULL);

	return rc >= 0 || (errno != ENOSYS && errno != EPERM);
}

/* A file of BLOCKS blocks, the last one of which has LAST_BYTES, with a pattern in it. */
static void open_file(unsigned flags, u32 last_bytes)
{
	u64 n = (BLOCKS - 1) * 4096 + last_bytes;
	const char *path = make_file("many", n);
	FILE *p;

	if (flags && !have(flags))
		SKIP("the kernel has none of that kind here");
	buf = lc_alloc(BLOCKS * 4096);
	fill(buf, n, 0, 1);
	p = fopen(path, "r+");
	assert_non_null(p);
	assert_int_equal(fwrite(buf, 1, n, p), n);
	assert_int_equal(fclose(p), 0);
	memset(buf, 0xee, BLOCKS * 4096);
	store_flags = flags;
	s = open_store(path);
	refusals = batches = 0;
	one_is_taken = false;
}

static void close_file(void)
{
	lc_store_close(s);
	/* Nothing keeps the lock. */
	lc_store_close(open_store(path_of("many")));
	lc_free(buf, BLOCKS * 4096);
}

/* All of the first NR blocks, each to its own place, neighbours far from each other in the list. */
static u32 ask(struct lc_io *list, void *to, u32 nr)
{
	u32 n = 0;

	for (u32 i = 0; i < 7; i++) {
		for (u32 k = i; k < nr; k += 7) {
			list[n++] = (struct lc_io){
				.op = LC_IO_READ,
				.buf = (u8 *)to + k * 4096,
				.len_bytes = 4096,
				.offset_bytes = k * 4096,
				.result = 1,
			};
		}
	}
	return n;
}

static void all_well(const struct lc_io *list, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		if (list[i].result)
			fail_msg("read %u of %u: %d", i, nr, list[i].result);
}

/* --- on both kinds, and whichever is there --- */

static const unsigned kinds[] = {0, LC_FILE_IO_URING, LC_FILE_IO_AIO};

static void any_number(void **state)
{
	static const u32 numbers[] = {0, 1, 2, 31, 32, 33, 64, BLOCKS};
	unsigned kind = *(const unsigned *)*state;

	open_file(kind, 4096);
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		u32 nr = numbers[i], n = ask(ios, buf, nr);

		batches = 0;
		lc_store_read_many(s, ios, n);
		all_well(ios, n);
		check_filled(buf, nr * 4096, 0, 1);
		memset(buf, 0xee, BLOCKS * 4096);
		/* One is a plain read; the others really go together. */
		assert_true(nr < 2 ? batches == 0 : batches > 0 && batches < 10);
	}
	assert_int_equal(lc_store_errors(s), 0);
	close_file();
}

static void sizes_differ(void **state)
{
	u32 n = 0;

	open_file(*(const unsigned *)*state, 4096);
	for (u32 at = 0, nr; at < BLOCKS; at += nr, n++) {
		nr = n % 5 + 1 < BLOCKS - at ? n % 5 + 1 : BLOCKS - at;
		ios[n] = (struct lc_io){
			.op = LC_IO_READ,
			.buf = buf + at * 4096,
			.len_bytes = nr * 4096,
			.offset_bytes = at * 4096,
		};
	}
	lc_store_read_many(s, ios, n);
	all_well(ios, n);
	check_filled(buf, BLOCKS * 4096, 0, 1);
	close_file();
}

/* The end of the file lies inside a sector, and behind it are zeros. */
static void odd_end(void **state)
{
	u64 size = (BLOCKS - 1) * 4096 + 1000;
	u32 n;

	open_file(*(const unsigned *)*state, 1000);
	n = ask(ios, buf, BLOCKS);
	lc_store_read_many(s, ios, n);
	all_well(ios, n);
	check_filled(buf, size, 0, 1);
	check_zero(buf + size, BLOCKS * 4096 - size);
	close_file();
}

/* The file shrank: what it does not have any more fails, by itself, and is counted; also the half of a read. */
static void some_fail(void **state)
{
	u32 n;

	open_file(*(const unsigned *)*state, 4096);
	assert_int_equal(truncate(path_of("many"), 100 * 4096 + 512), 0);
	n = ask(ios, buf, BLOCKS);
	lc_store_read_many(s, ios, n);
	for (u32 i = 0; i < n; i++)
		assert_int_equal(ios[i].result, ios[i].offset_bytes < 100 * 4096 ? 0 : -EIO);
	check_filled(buf, 100 * 4096, 0, 1);
	assert_int_equal(lc_store_errors(s), BLOCKS - 100);
	assert_non_null(strstr(log_text, "shrank"));
	close_file();
}

/* --- the kernel refuses --- */

static void read_refused(int error, unsigned times)
{
	u32 n = ask(ios, buf, BLOCKS);

	refusal = error;
	refusals = times;
	lc_store_read_many(s, ios, n);
	assert_int_equal(refusals, 0);
	all_well(ios, n);
	check_filled(buf, BLOCKS * 4096, 0, 1);
	memset(buf, 0xee, BLOCKS * 4096);
}

/* A signal is nothing; whatever else it says, the reads are done without the ring, and the next call tries another. */
static void refused(void **state)
{
	unsigned kind = *(const unsigned *)*state, before;

	open_file(kind, 4096);
	read_refused(-EINTR, 3);
	read_refused(-EAGAIN, 1);
	read_refused(-EPERM, 1);
	before = batches;
	read_refused(0, 0);
	assert_true(batches > before);
	close_file();
}

static void taken_one_by_one(void **state)
{
	(void)state;
	open_file(LC_FILE_IO_AIO, 4096);
	one_is_taken = true;
	read_refused(0, 0);
	batches = 0;
	read_refused(-EAGAIN, 1);
	close_file();
}

static int without_either(void *arg)
{
	u32 n = ask(ios, buf, BLOCKS);

	(void)arg;
	if (!deny(SYS_io_uring_setup, -1, 0, EPERM) || !deny(SYS_io_setup, -1, 0, EPERM))
		return CHILD_SKIPS;
	for (unsigned round = 0; round < 3; round++) {
		memset(buf, 0xee, BLOCKS * 4096);
		lc_store_read_many(s, ios, n);
		for (u32 i = 0; i < n; i++)
			MUST(ios[i].result == 0);
		for (u32 i = 0; i < BLOCKS * 4096; i++)
			MUST(buf[i] == pattern(i, 1));
	}
	MUST(batches == 0);
	return 0;
}

/* One after the other. */
static void neither(void **state)
{
	int rc;

	(void)state;
	open_file(0, 4096);
	rc = in_child(without_either, NULL);
	close_file();
	if (rc == CHILD_SKIPS)
		SKIP("no seccomp here");
	assert_int_equal(rc, 0);
}

/* --- many threads --- */

enum { THREADS = 80, ROUNDS = 15 };

struct reader {
	struct lc_thread thread;
	u8 *buf;
	struct lc_io ios[BLOCKS];
	bool wrong;
};

static void reader_main(void *arg)
{
	struct reader *r = arg;

	for (unsigned round = 0; round < ROUNDS && !r->wrong; round++) {
		u32 nr = 2 + round * 7 % 60, n = ask(r->ios, r->buf, nr);

		lc_store_read_many(s, r->ios, n);
		for (u32 i = 0; i < n; i++)
			r->wrong |= r->ios[i].result != 0;
		for (u32 i = 0; i < nr * 4096; i += 64)
			r->wrong |= r->buf[i] != pattern(i, 1);
		memset(r->buf, 0xee, nr * 4096);
	}
}

/* More of them than there are rings. */
static void threads(void **state)
{
	struct reader *readers = calloc(THREADS, sizeof(*readers));

	open_file(*(const unsigned *)*state, 4096);
	for (unsigned i = 0; i < THREADS; i++) {
		readers[i].buf = lc_alloc(BLOCKS * 4096);
		assert_int_equal(lc_thread_start(&readers[i].thread, "test-reader", reader_main,
						 &readers[i]),
				 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		lc_thread_join(&readers[i].thread);
		assert_false(readers[i].wrong);
		lc_free(readers[i].buf, BLOCKS * 4096);
	}
	free(readers);
	close_file();
}

#define EACH(f)                                                            \
	{#f ": auto", f, test_setup, NULL, (void *)&kinds[0]},             \
		{#f ": io_uring", f, test_setup, NULL, (void *)&kinds[1]}, \
	{                                                                  \
#f ": libaio", f, test_setup, NULL, (void *)&kinds[2]      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(any_number),
		EACH(sizes_differ),
		EACH(odd_end),
		EACH(some_fail),
		EACH(refused),
		cmocka_unit_test_setup(taken_one_by_one, test_setup),
		cmocka_unit_test_setup(neither, test_setup),
		EACH(threads),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
