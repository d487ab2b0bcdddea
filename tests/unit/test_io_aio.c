/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_aio.c - the queue on libaio, where the kernel does what a healthy machine hardly ever
 * does: takes a part of a batch or nothing, transfers a part of an I/O, refuses one, knows no flush.
 *
 * This program puts itself between src/io and libaio: the faults are in io_submit and io_getevents.
 */
#include "test_io.h"

#include <libaio.h>
#include <sys/syscall.h>

#include "logcache/rt.h"

/* What shall go wrong, set by a test before it does I/O. */
static struct {
	unsigned batch;	      /* submit at most so many at a time; 0: all */
	unsigned starve;      /* so many submissions find no resources */
	int refuse;	      /* the next read or write is refused with this errno */
	bool refuse_fdsync;   /* flush is unknown to the file system */
	bool complete_fdsync; /* the same, but said by the completion */
	unsigned again;	      /* so many I/Os complete with EAGAIN */
	unsigned halve;	      /* so many I/Os are transferred in part */
	bool deaf;	      /* io_getevents is refused */
} fault;

static unsigned submissions, fdsyncs;

int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	long rc;

	submissions++;
	if (fault.starve) {
		fault.starve--;
		return -EAGAIN;
	}
	if (fault.batch && nr > (long)fault.batch)
		nr = (long)fault.batch;
	for (long i = 0; i < nr; i++) {
		bool flush = ios[i]->aio_lio_opcode == IO_CMD_FDSYNC;
		int err = flush ? (fault.refuse_fdsync ? EINVAL : 0) : fault.refuse;

		fdsyncs += flush;
		if (!err)
			continue;
		if (i > 0) {
			nr = i; /* the kernel takes what comes before it */
			break;
		}
		if (!flush)
			fault.refuse = 0;
		return -err;
	}
	rc = syscall(SYS_io_submit, ctx, nr, ios);
	return rc < 0 ? -errno : (int)rc;
}

int io_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events,
		 struct timespec *timeout)
{
	long rc;

	if (fault.deaf)
		return -EPERM;
	rc = syscall(SYS_io_getevents, ctx, min_nr, nr, events, timeout);
	for (long i = 0; i < rc; i++) {
		const struct lc_io *io = events[i].data;

		if (io->op == LC_IO_FLUSH && fault.complete_fdsync) {
			events[i].res = (unsigned long)-EINVAL;
		} else if (io->op != LC_IO_FLUSH && fault.again) {
			fault.again--;
			events[i].res = (unsigned long)-EAGAIN;
		} else if (io->op != LC_IO_FLUSH && fault.halve && events[i].res > 4096) {
			fault.halve--;
			events[i].res /= 2;
		}
	}
	return rc < 0 ? -errno : (int)rc;
}

/* --- the tests --- */

enum { N = 200, EACH = 8192 };

static struct lc_store *store;
static struct lc_queue *queue;
static u8 *buf;
static struct lc_io io_of[N];

static int aio_setup(void **state)
{
	test_setup(state);
	memset(&fault, 0, sizeof(fault));
	store_flags = LC_FILE_IO_AIO;
	store = open_store(make_file("aio", N * EACH));
	buf = lc_alloc(N * EACH);
	queue = NULL;
	if (lc_queue_open(store, 8, NULL, 0, &queue, NULL))
		queue = NULL; /* need_aio() skips */
	return 0;
}

static int aio_teardown(void **state)
{
	(void)state;
	if (queue)
		lc_queue_close(queue);
	lc_store_close(store);
	lc_free(buf, N * EACH);
	return 0;
}

static void need_aio(void)
{
	if (!queue)
		SKIP("no libaio here");
}

/* Reap N_IOS; returns how many failed. */
static unsigned reap(unsigned n_ios)
{
	unsigned got = 0, failed = 0;

	while (got < n_ios) {
		struct lc_io *io = lc_queue_wait(queue, lc_now_ns() + 10 * LC_NS_PER_S);

		assert_non_null(io);
		for (; io; io = io->next, got++)
			failed += io->result != 0;
	}
	assert_int_equal(got, n_ios);
	return failed;
}

static void submit_all(enum lc_io_op op)
{
	for (unsigned i = 0; i < N; i++) {
		io_of[i] = (struct lc_io){
			.op = op,
			.buf = buf + i * EACH,
			.len_bytes = EACH,
			.offset_bytes = (u64)i * EACH,
		};
		lc_queue_submit(queue, &io_of[i]);
	}
}

static int flush(void)
{
	struct lc_io io = {.op = LC_IO_FLUSH};

	lc_queue_submit(queue, &io);
	reap(1);
	return io.result;
}

/* Write and read everything with the fault that is set, once in each direction. */
static void round_trip(unsigned seed)
{
	typeof(fault) what = fault;

	fill(buf, N * EACH, 0, seed);
	submit_all(LC_IO_WRITE);
	assert_int_equal(reap(N), 0);
	assert_int_equal(flush(), 0);
	memset(buf, 0, N * EACH);
	fault = what;
	submit_all(LC_IO_READ);
	assert_int_equal(reap(N), 0);
	check_filled(buf, N * EACH, 0, seed);
}

static void small_batches(void **state)
{
	(void)state;
	need_aio();
	for (fault.batch = 1; fault.batch < 8; fault.batch += 2)
		round_trip(fault.batch);
}

static void starved(void **state)
{
	(void)state;
	need_aio();
	/* Also when nothing is in flight whose end could wake us. */
	fault.starve = 20;
	round_trip(1);
	assert_int_equal(fault.starve, 0);
	fault.again = 20;
	round_trip(2);
	assert_int_equal(fault.again, 0);
	/* A deadline is kept all the same, and the I/O is not lost. */
	fault.starve = UINT32_MAX;
	io_of[0] = (struct lc_io){.op = LC_IO_READ, .buf = buf, .len_bytes = EACH};
	lc_queue_submit(queue, &io_of[0]);
	assert_null(lc_queue_wait(queue, 0));
	assert_null(lc_queue_wait(queue, lc_now_ns() + 20 * LC_NS_PER_MS));
	/* And so is a kick. */
	lc_queue_kick(queue);
	assert_null(lc_queue_wait(queue, LC_FOREVER));
	fault.starve = 0;
	assert_int_equal(reap(1), 0);
}

static void partial(void **state)
{
	(void)state;
	need_aio();
	fault.halve = 150;
	round_trip(1);
	assert_int_equal(fault.halve, 0);
}

/* One I/O that the kernel does not take fails alone. */
static void refused(void **state)
{
	(void)state;
	need_aio();
	submit_all(LC_IO_WRITE);
	fault.refuse = EFAULT;
	assert_int_equal(reap(N), 1);
	assert_int_equal(io_of[0].result, -EFAULT);
	assert_int_equal(io_of[1].result, 0);
	round_trip(1);
}

/* Where the kernel has no asynchronous flush, the owner does it, and does not ask again. */
static void no_fdsync(void **state)
{
	struct lc_io last = {.op = LC_IO_FLUSH};

	(void)state;
	need_aio();
	fault.refuse_fdsync = true;
	fdsyncs = 0;
	round_trip(1);
	assert_int_equal(flush(), 0);
	assert_int_equal(fdsyncs, 1);
	/* Behind other I/O. */
	submit_all(LC_IO_WRITE);
	lc_queue_submit(queue, &last);
	assert_int_equal(reap(N + 1), 0);
	assert_int_equal(fdsyncs, 1);
}

static void no_fdsync_late(void **state)
{
	(void)state;
	need_aio();
	fault.complete_fdsync = true;
	fdsyncs = 0;
	assert_int_equal(flush(), 0);
	assert_int_equal(flush(), 0);
	assert_int_equal(fdsyncs, 1);
}

/* A filter that comes after the start: a message, no busy loop, and it goes on when it can. */
static void deaf(void **state)
{
	(void)state;
	need_aio();
	fault.deaf = true;
	submissions = 0;
	io_of[0] = (struct lc_io){.op = LC_IO_READ, .buf = buf, .len_bytes = EACH};
	lc_queue_submit(queue, &io_of[0]);
	assert_null(lc_queue_wait(queue, lc_now_ns() + 30 * LC_NS_PER_MS));
	assert_non_null(strstr(log_text, "refuses io_getevents"));
	assert_null(strstr(strstr(log_text, "refuses") + 1, "refuses"));
	assert_int_equal(submissions, 1);
	fault.deaf = false;
	assert_int_equal(reap(1), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, aio_setup, aio_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(small_batches), TEST(starved),	   TEST(partial), TEST(refused),
		TEST(no_fdsync),     TEST(no_fdsync_late), TEST(deaf),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
