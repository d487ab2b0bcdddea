/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_direct.c - a cache without an SSD: volumes straight on their disks, whatever the alignment of the
 * requests and the logical blocks of the disk.
 */
#include "cache_life.h"

#include <pthread.h>

static struct mem_store *const disk = &disks[0];

static void make_direct(u64 size_bytes, u32 block_bytes)
{
	make(NO_SSD, 0, 2, 3 * MIB);
	for (u32 i = 0; i < 2; i++) {
		disks[i].store.block_bytes = block_bytes;
		memset(disks[i].data + size_bytes, 0, 3 * MIB - size_bytes);
		disks[i].store.size_bytes = size_bytes;
	}
}

/* --- one request --- */

static void every_alignment_is_served(void **state)
{
	static const u32 at[] = {0,    1,    511,  512,	 513,  1000, 1024, 4095,
				 4096, 4097, 4608, 8191, 8192, 9000, 12288};
	static const u32 units[] = {512, 1024, 4096};
	const u32 size = 12288 + 17;

	(void)state;
	for (u32 u = 0; u < 3; u++) {
		make_direct(size, units[u]);
		must_open();
		for (u32 i = 0; i < sizeof at / sizeof *at; i++)
			for (u32 k = 0; k < 2 * sizeof at / sizeof *at; k++) {
				u32 from = at[i], to = k % 2 ? at[k / 2] : at[k / 2] + 17;

				if (to <= from)
					continue;
				memset(disk->data, noise(0), size);
				assert_int_equal(try_put(0, from, to - from, 0x11), 0);
				assert_bytes(disk->data, from, noise(0), 0, "before");
				assert_bytes(disk->data + from, to - from, 0x11, from, "in it");
				assert_bytes(disk->data + to, size - to, noise(0), to, "behind");
				assert_reads_bytes(0, from, to - from, 0x11);
				assert_int_equal(lc_zero(volume(0), to - from, from, 0), 0);
				assert_bytes(disk->data, from, noise(0), 0, "before zeros");
				assert_bytes(disk->data + from, to - from, 0, from, "in zeros");
				assert_bytes(disk->data + to, size - to, noise(0), to,
					     "behind zeros");
			}
		must_close();
		assert_bytes(disk->data + size, 8192, 0, size, "behind the end");
		mem_close(&disks[0].store);
		mem_close(&disks[1].store);
	}
	nr_disks = 0;
}

/* --- many, against an array of bytes --- */

static void agrees_with_an_array(u64 size, u32 block_bytes, u32 rounds)
{
	u8 *model = malloc(size), *buf = malloc(size);
	u64 seed = size + block_bytes;

	make_direct(size, block_bytes);
	memset(model, noise(0), size);
	must_open();
	assert_true(lc_volume_size_bytes(volume(0)) == size);
	for (u32 i = 0; i < rounds; i++) {
		u64 most = rnd_below(&seed, 4) ? 9000 : size;
		u64 offset = rnd_below(&seed, size), len = 1 + rnd_below(&seed, most);
		unsigned flags = rnd_below(&seed, 8) ? 0 : LC_FUA;
		u64 first, end;

		if (rnd_below(&seed, 3) == 0)
			offset -= offset % LC_BLOCK;
		if (len > size - offset)
			len = size - offset;
		first = (offset + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
		end = (offset + len) / LC_BLOCK * LC_BLOCK;
		disk->zero_error = rnd_below(&seed, 3) ? 0 : -EOPNOTSUPP;
		switch (rnd_below(&seed, 10)) {
		case 0 ... 3:
			rnd_fill(&seed, buf, len);
			memcpy(model + offset, buf, len);
			assert_int_equal(lc_write(volume(0), buf, len, offset, flags), 0);
			break;
		case 4 ... 5:
			memset(model + offset, 0, len);
			flags |= rnd_below(&seed, 2) ? LC_MAY_TRIM : 0;
			assert_int_equal(lc_zero(volume(0), len, offset, flags), 0);
			break;
		case 6:
			disk->zero_error = 0;
			if (first < end)
				memset(model + first, 0, end - first);
			assert_int_equal(lc_trim(volume(0), len, offset, flags), 0);
			break;
		default:
			assert_int_equal(lc_read(volume(0), buf, len, offset), 0);
			assert_memory_equal(buf, model + offset, len);
		}
		assert_memory_equal(disk->data, model, size);
	}
	must_close();
	assert_bytes(disk->data + size, 8192, 0, size, "behind the end");
	free(model);
	free(buf);
}

static void random_requests_with_sectors(void **state)
{
	(void)state;
	agrees_with_an_array(300 * LC_BLOCK, 512, 800);
}

static void random_requests_with_blocks_of_4096(void **state)
{
	(void)state;
	agrees_with_an_array(300 * LC_BLOCK, 4096, 800);
}

static void random_requests_on_an_odd_size(void **state)
{
	(void)state;
	agrees_with_an_array(70 * LC_BLOCK + 17, 4096, 800);
}

static void random_requests_on_an_odd_size_with_sectors(void **state)
{
	(void)state;
	agrees_with_an_array(70 * LC_BLOCK + 513, 512, 800);
}

static void random_requests_on_three_bytes(void **state)
{
	(void)state;
	agrees_with_an_array(3, 512, 300);
}

/* --- durability --- */

static void flush_and_fua_reach_the_disk(void **state)
{
	(void)state;
	make_direct(MIB, 512);
	must_open();
	assert_false(lc_cache_has_ssd(cache));
	put(0, 0, 1, 0x11);
	assert_int_equal(disk->flushes, 0);
	flush();
	assert_int_equal(disk->flushes, 1);
	assert_int_equal(disks[1].flushes, 0); /* a flush is for its volume */
	assert_int_equal(lc_write(volume(0), client_buf, 100, 7, LC_FUA), 0);
	assert_int_equal(disk->flushes, 2);
	assert_int_equal(lc_zero(volume(0), 20 * LC_BLOCK, 0, LC_FUA), 0);
	assert_int_equal(disk->flushes, 3);
	assert_int_equal(lc_trim(volume(0), 20 * LC_BLOCK, 0, LC_FUA), 0);
	assert_int_equal(disk->flushes, 4);
	assert_int_equal(disk->trace[disk->nr_trace - 1].op, LC_IO_FLUSH);
	must_drain();
	must_close();
	assert_int_equal(disk->flushes, 5); /* closing leaves nothing behind */
	assert_int_equal(disks[1].flushes, 1);
}

static void what_the_disk_answers_is_told(void **state)
{
	(void)state;
	make_direct(MIB, 512);
	must_open();
	disk->write_error = -ENOSPC;
	assert_int_equal(try_put(0, 0, LC_BLOCK, 1), -ENOSPC);
	disk->zero_error = -ENOSPC;
	assert_int_equal(lc_zero(volume(0), 20 * LC_BLOCK, 0, 0), -ENOSPC);
	assert_int_equal(lc_trim(volume(0), 20 * LC_BLOCK, 0, 0), -ENOSPC);
	disk->write_error = 0;
	assert_int_equal(lc_zero(volume(0), 20 * LC_BLOCK, 0, 0), 0); /* written */
	assert_on_disk(0, 0, 20, 0);
	mem_revive(disk);
	disk->read_error = -EILSEQ;
	assert_int_equal(lc_read(volume(0), client_buf, 9, 9), -EILSEQ);
	assert_int_equal(try_put(0, 9, 9, 1), -EILSEQ); /* it would have to know the rest */
	put(0, 1, 1, 1);
	mem_revive(disk);
	disk->flush_error = -EIO;
	assert_int_equal(lc_flush(volume(0)), -EIO);
	assert_int_equal(lc_write(volume(0), client_buf, 512, 0, LC_FUA), -EIO);
	assert_int_equal(lc_flush(volume(1)), 0);
	disks[1].flush_error = -ENXIO;
	disk->flush_error = 0;
	assert_int_equal(close_cache(), -ENXIO);
}

/*
 * A disk tells of a flush that failed once, and what is lost then may be anybody's. (Whoever flushed next was told that all was
 * well.)
 */
static void each_client_hears_of_a_failed_flush_once(void **state)
{
	struct lc_client clients[3];

	(void)state;
	make_direct(MIB, 512);
	must_open();
	for (unsigned i = 0; i < 3; i++)
		lc_client_begin(volume(0), &clients[i]);
	for (unsigned by = 0; by < 3; by++) {
		put(0, by, 1, 1);
		disk->flush_error = -EIO;
		if (by == 0)
			assert_int_equal(lc_client_flush(volume(0), &clients[0]), -EIO);
		else if (by == 1)
			assert_int_equal(lc_write(volume(0), client_buf, 512, 0, LC_FUA), -EIO);
		else
			assert_int_equal(lc_flush(volume(0)), -EIO);
		disk->flush_error = 0;
		/* This concerns only what is written now. */
		assert_int_equal(lc_write(volume(0), client_buf, 512, 0, LC_FUA), 0);
		for (unsigned i = by == 0; i < 3; i++)
			assert_int_equal(lc_client_flush(volume(0), &clients[i]), -EIO);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(lc_client_flush(volume(0), &clients[i]), 0);
	}
	must_close();
}

/* The first flush has failed, and it takes a while until that is told. The store says to the next one that all is well. */
static bool asked;

static int tell_late(struct lc_store *s)
{
	(void)s;
	if (__atomic_exchange_n(&asked, true, __ATOMIC_RELAXED))
		return 0;
	sleep_ms(200);
	return -EIO;
}

static void *flush_first(void *result)
{
	*(int *)result = lc_flush(volume(0));
	return NULL;
}

static void whoever_flushes_meanwhile_hears_of_it_too(void **state)
{
	static struct lc_store_ops late;
	pthread_t thread;
	int first = 0;

	(void)state;
	make_direct(MIB, 512);
	late = *disk->store.ops;
	late.flush = tell_late;
	disk->store.ops = &late;
	asked = false;
	must_open();
	put(0, 0, 1, 1);
	assert_int_equal(pthread_create(&thread, NULL, flush_first, &first), 0);
	must_become(__atomic_load_n(&asked, __ATOMIC_RELAXED));
	assert_int_equal(lc_flush(volume(0)), -EIO);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(first, -EIO);
	assert_int_equal(lc_flush(volume(0)), 0);
	must_close();
}

/*
 * Two flushes of one client are under way when it hears of somebody else's failure: what it wrote before the second one may be
 * what was lost. (Only the first one that came back said so.)
 */
static u32 nr_asked, nr_answered;

static u32 read_count(const u32 *nr)
{
	return __atomic_load_n(nr, __ATOMIC_ACQUIRE);
}

/* The N-th flush is answered when the test says so; the first one has failed. */
static int answer_in_turn(struct lc_store *s)
{
	u32 n = __atomic_fetch_add(&nr_asked, 1, __ATOMIC_ACQ_REL);

	(void)s;
	while (read_count(&nr_answered) <= n)
		sleep_ms(1);
	return n ? 0 : -EIO;
}

static struct lc_client twice;

static void *flush_of_client(void *result)
{
	*(int *)result = lc_client_flush(volume(0), &twice);
	return NULL;
}

static void all_flushes_under_way_tell(void **state)
{
	static struct lc_store_ops in_turn;
	pthread_t threads[3];
	int results[3] = {1, 1, 1};

	(void)state;
	make_direct(MIB, 512);
	in_turn = *disk->store.ops;
	in_turn.flush = answer_in_turn;
	disk->store.ops = &in_turn;
	nr_asked = nr_answered = 0;
	must_open();
	lc_client_begin(volume(0), &twice);
	for (u32 i = 0; i < 3; i++) {
		void *(*what)(void *) = i ? flush_of_client : flush_first;

		assert_int_equal(pthread_create(&threads[i], NULL, what, &results[i]), 0);
		must_become(stats().flushes == i + 1);
		if (i == 1) { /* the first one comes back, so the third one begins when its failure is known */
			__atomic_store_n(&nr_answered, 1, __ATOMIC_RELEASE);
			must_become(read_count(&nr_asked) == 2);
		}
	}
	for (u32 i = 0; i < 3; i++) {
		__atomic_store_n(&nr_answered, i + 1, __ATOMIC_RELEASE);
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	}
	__atomic_store_n(&nr_answered, UINT32_MAX, __ATOMIC_RELEASE);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(results[i], -EIO);
	assert_int_equal(lc_client_flush(volume(0), &twice), 0);
	assert_int_equal(close_cache(), 0);
}

/* --- zeros --- */

static void the_disk_zeroes_itself_where_it_can(void **state)
{
	(void)state;
	make_direct(3 * MIB, 512);
	must_open();
	assert_true(lc_volume_can_trim(volume(0)) && lc_volume_can_fast_zero(volume(0)));
	assert_int_equal(lc_zero(volume(0), 600 * LC_BLOCK, 10 * LC_BLOCK, 0), 0);
	assert_int_equal(disk->writes, 0);
	assert_int_equal(disk->zeroes, 1);
	assert_int_equal(lc_zero(volume(0), 60 * LC_BLOCK, 10 * LC_BLOCK, LC_MAY_TRIM), 0);
	assert_int_equal(lc_trim(volume(0), 60 * LC_BLOCK - 1, 100 * LC_BLOCK + 1, 0), 0);
	assert_int_equal(disk->punches, 2);
	assert_false(mem_is_taken(disk, 101));
	assert_true(mem_is_taken(disk, 100));
	assert_int_equal(disk->writes, 0);
	assert_true(stats().zero_bytes == 660 * LC_BLOCK);
	assert_int_equal(stats().trims, 1);
	disk->store.can_zero = disk->store.can_punch = false;
	mem_forget(disk);
	assert_int_equal(lc_zero(volume(0), 60 * LC_BLOCK, 0, LC_FAST_ONLY), -EOPNOTSUPP);
	assert_int_equal(lc_trim(volume(0), 60 * LC_BLOCK, 0, LC_FUA), 0);
	assert_int_equal(disk->nr_trace, 0);
	assert_on_disk(0, 0, 10, noise(0));
	must_close();
}

static void extents_are_those_of_the_disk(void **state)
{
	struct lc_extent e;

	(void)state;
	make_direct(MIB, 512);
	assert_int_equal(lc_store_zero(&disk->store, 10 * LC_BLOCK, 5 * LC_BLOCK, true), 0);
	must_open();
	assert_int_equal(lc_extent(volume(0), MIB - 3, 3, &e), 0);
	assert_false(e.hole);
	assert_true(e.len_bytes == 5 * LC_BLOCK - 3);
	assert_int_equal(lc_extent(volume(0), 99 * LC_BLOCK, 6 * LC_BLOCK, &e), 0);
	assert_true(e.hole && e.len_bytes == 9 * LC_BLOCK);
	disk->extent_error = -EIO;
	assert_int_equal(lc_extent(volume(0), 9, 9, &e), -EIO);
	must_close();
}

/* --- several writers --- */

#define WRITERS 4u
#define ROUNDS 400u

/* Writer I's bytes of a few blocks: every WRITERS-th stretch of 37 bytes. */
static void *writer(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	u64 seed = me;
	u8 buf[37];

	for (u32 round = 0; round < ROUNDS; round++) {
		u32 stretch = rnd_below(&seed, 80) * WRITERS + me;

		memset(buf, 1 + me * 50 + round % 50, sizeof buf);
		assert_int_equal(lc_write(volume(0), buf, sizeof buf, stretch * 37, 0), 0);
	}
	memset(buf, 0xa0 + me, sizeof buf);
	for (u32 k = 0; k < 80; k++)
		assert_int_equal(lc_write(volume(0), buf, sizeof buf, (k * WRITERS + me) * 37, 0), 0);
	return NULL;
}

/* Each writes a part of a logical block that others write other parts of: none may undo another's. */
static void writers_of_one_block_take_turns(void **state)
{
	pthread_t threads[WRITERS];

	(void)state;
	make_direct(MIB, 4096);
	must_open();
	for (uintptr_t i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, writer, (void *)i), 0);
	for (u32 i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (u32 k = 0; k < 80 * WRITERS; k++)
		assert_bytes(disk->data + k * 37, 37, 0xa0 + k % WRITERS, k * 37, "the disk");
	must_close();
}

#define T(name) LIFE_TEST(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_alignment_is_served),
		T(random_requests_with_sectors),
		T(random_requests_with_blocks_of_4096),
		T(random_requests_on_an_odd_size),
		T(random_requests_on_an_odd_size_with_sectors),
		T(random_requests_on_three_bytes),
		T(flush_and_fua_reach_the_disk),
		T(what_the_disk_answers_is_told),
		T(each_client_hears_of_a_failed_flush_once),
		T(whoever_flushes_meanwhile_hears_of_it_too),
		T(all_flushes_under_way_tell),
		T(the_disk_zeroes_itself_where_it_can),
		T(extents_are_those_of_the_disk),
		T(writers_of_one_block_take_turns),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
