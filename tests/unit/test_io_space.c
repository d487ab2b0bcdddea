/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_space.c - zeros, holes and what the store says about them, on files. Devices are in
 * test_io_device.c.
 *
 * What a file system cannot do is tested where it can: a seccomp filter in a child says no.
 */
#include "test_io.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "logcache/rt.h"

#define KIB 1024ull
#define SIZE (256 * KIB)

static u64 space_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (u64)st.st_blocks * 512;
}

/* A file of SIZE, filled with the pattern of SEED up to its last byte. */
static const char *make_filled(const char *name, u64 size, unsigned seed)
{
	const char *path = path_of(name);
	u8 *buf = malloc(size);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	fill(buf, size, 0, seed);
	assert_int_equal(pwrite(fd, buf, size, 0), size);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	free(buf);
	return path;
}

/* The file is what make_filled() made, but for zeros in [FROM, TO); seen by the store and by others. */
static void check_file(struct lc_store *s, const char *path, unsigned seed, u64 from, u64 to)
{
	u64 size = s->size_bytes, whole = (size + 4095) / 4096 * 4096;
	u8 *buf = lc_alloc(whole);
	int fd = open(path, O_RDONLY);

	for (unsigned i = 0; i < 2; i++) {
		memset(buf, 0xee, whole);
		if (i)
			assert_int_equal(pread(fd, buf, size, 0), size);
		else
			assert_int_equal(lc_store_read(s, buf, (u32)whole, 0), 0);
		check_filled(buf, from, 0, seed);
		check_zero(buf + from, to - from);
		check_filled(buf + to, size - to, to, seed);
	}
	close(fd);
	lc_free(buf, whole);
	assert_int_equal(size_of(path), size);
}

static struct lc_store *open_if_can(const char *path, bool punch)
{
	struct lc_store *s = open_store(path);

	if (punch ? s->can_punch : s->can_zero)
		return s;
	lc_store_close(s);
	SKIP(punch ? "this file system cannot punch" : "this file system has no ZERO_RANGE");
}

/* --- zero --- */

static void punch(void **state)
{
	const char *path = make_filled("punch", SIZE, 1);
	struct lc_store *s = open_if_can(path, true);
	u64 before = space_of(path);

	(void)state;
	assert_int_equal(lc_store_zero(s, 64 * KIB, 32 * KIB, true), 0);
	assert_int_equal(lc_store_flush(s), 0);
	check_file(s, path, 1, 32 * KIB, 96 * KIB);
	assert_int_equal(space_of(path), before - 64 * KIB);
	/* Once more, over a hole, and over all of the file. */
	assert_int_equal(lc_store_zero(s, 128 * KIB, 32 * KIB, true), 0);
	check_file(s, path, 1, 32 * KIB, 160 * KIB);
	assert_int_equal(space_of(path), before - 128 * KIB);
	assert_int_equal(lc_store_zero(s, SIZE, 0, true), 0);
	check_file(s, path, 1, 0, SIZE);
	assert_int_equal(space_of(path), 0);
	lc_store_close(s);
}

static void keep_space(void **state)
{
	const char *path = make_filled("keep", SIZE, 1);
	struct lc_store *s = open_if_can(path, false);
	u64 before = space_of(path);

	(void)state;
	assert_int_equal(lc_store_zero(s, 64 * KIB, 32 * KIB, false), 0);
	check_file(s, path, 1, 32 * KIB, 96 * KIB);
	assert_int_equal(space_of(path), before);
	assert_int_equal(lc_store_zero(s, SIZE, 0, false), 0);
	check_file(s, path, 1, 0, SIZE);
	assert_int_equal(space_of(path), before);
	/* What was a hole gets space. */
	assert_int_equal(lc_store_zero(s, SIZE, 0, true), 0);
	assert_int_equal(space_of(path), 0);
	assert_int_equal(lc_store_zero(s, SIZE, 0, false), 0);
	assert_int_equal(space_of(path), before);
	lc_store_close(s);
}

/* The last block of a file of any size, alone and with others; and not the last. */
static void odd_ends(void **state)
{
	static const u64 sizes[] = {1,	  511,	      512,	     4095,
				    4097, 8192 + 512, 3 * 4096 + 17, 65536 + 2560};

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned keep = 0; keep < 2; keep++) {
			u64 size = sizes[i], last = (size - 1) / 4096 * 4096;
			const char *path = make_filled("odd", size, i);
			struct lc_store *s = open_store(path);
			u64 before = space_of(path);
			u8 *buf;

			if (keep ? !s->can_zero : !s->can_punch) {
				lc_store_close(s);
				continue;
			}
			buf = lc_alloc(4096);
			assert_int_equal(lc_store_zero(s, size - last, last, !keep), 0);
			check_file(s, path, i, last, size);
			if (!keep)
				assert_int_equal(space_of(path), before - 4096);
			/* It can be written again, through whichever descriptor. */
			fill(buf, 4096, last, i);
			assert_int_equal(lc_store_write(s, buf, 4096, last), 0);
			check_file(s, path, i, 0, 0);
			if (last) {
				assert_int_equal(lc_store_zero(s, last, 0, !keep), 0);
				check_file(s, path, i, 0, last);
			}
			assert_int_equal(lc_store_zero(s, size, 0, !keep), 0);
			check_file(s, path, i, 0, size);
			assert_int_equal(lc_store_flush(s), 0);
			lc_free(buf, 4096);
			lc_store_close(s);
			assert_int_equal(size_of(path), size);
		}
	}
}

/* --- beside the buffered tail --- */

struct tail_writer {
	struct lc_store *s;
	atomic_bool stop;
	atomic_uint rounds;
	unsigned wrong;
};

/* Write the last, incomplete block again and again, and see that it stays what was written. */
static void tail_main(void *arg)
{
	struct tail_writer *w = arg;
	u64 last = w->s->size_bytes / 4096 * 4096, n = w->s->size_bytes - last;
	u8 *buf = lc_alloc(4096);

	while (!atomic_load(&w->stop)) {
		unsigned seed = atomic_fetch_add(&w->rounds, 1);

		fill(buf, 4096, last, seed);
		w->wrong += lc_store_write(w->s, buf, 4096, last) != 0;
		memset(buf, 0, 4096);
		w->wrong += lc_store_read(w->s, buf, 4096, last) != 0;
		for (u64 i = 0; i < n; i++)
			w->wrong += buf[i] != pattern(last + i, seed);
		for (u64 i = n; i < 4096; i++)
			w->wrong += buf[i] != 0;
	}
	lc_free(buf, 4096);
}

static void beside_the_tail(void **state)
{
	const u64 size = 4 * 4096 + 17;
	const char *path = make_filled("beside", size, 0);
	struct lc_store *s = open_if_can(path, true);
	struct tail_writer w = {.s = s};
	u8 *buf = lc_alloc(8192);
	struct lc_thread t;

	(void)state;
	assert_int_equal(lc_thread_start(&t, "test-tail", tail_main, &w), 0);
	for (unsigned i = 0; i < 300 || atomic_load(&w.rounds) < 50; i++) {
		/* The two blocks before the tail: written, then one or both zeroed. */
		fill(buf, 8192, 8192, i);
		assert_int_equal(lc_store_write(s, buf, 8192, 8192), 0);
		assert_int_equal(lc_store_zero(s, 4096, 12288, i % 2 || !s->can_zero), 0);
		memset(buf, 0xee, 8192);
		assert_int_equal(lc_store_read(s, buf, 8192, 8192), 0);
		check_filled(buf, 4096, 8192, i);
		check_zero(buf + 4096, 4096);
		if (i % 50 == 0)
			assert_int_equal(lc_store_flush(s), 0);
	}
	atomic_store(&w.stop, true);
	lc_thread_join(&t);
	assert_int_equal(w.wrong, 0);
	/* With the tail itself: dirty in the page cache, and gone all the same. */
	fill(buf, 4096, 16384, 5);
	assert_int_equal(lc_store_write(s, buf, 4096, 16384), 0);
	assert_int_equal(lc_store_zero(s, size, 0, true), 0);
	assert_int_equal(lc_store_flush(s), 0);
	check_file(s, path, 5, 0, size);
	lc_free(buf, 8192);
	lc_store_close(s);
}

/* A file that nobody reads through O_DIRECT. */
static void without_direct(void **state)
{
	const u64 size = 64 * KIB + 17;
	struct lc_store *s;
	struct lc_extent e;
	u8 *buf = lc_alloc(68 * KIB);

	(void)state;
	if (!mount_fs("ramfs", "ramfs", NULL)) {
		lc_free(buf, 68 * KIB);
		SKIP("cannot mount a ramfs");
	}
	assert_int_equal(lc_file_create(path_in_mount("x"), size, NULL), 0);
	s = open_store(path_in_mount("x"));
	/* It cannot do any of this, and says so beforehand and afterwards. */
	assert_false(s->can_zero);
	assert_false(s->can_punch);
	fill(buf, 68 * KIB, 0, 1);
	assert_int_equal(lc_store_write(s, buf, 68 * KIB, 0), 0);
	assert_int_equal(lc_store_zero(s, 4096, 4096, true), -EOPNOTSUPP);
	assert_int_equal(lc_store_zero(s, size, 0, false), -EOPNOTSUPP);
	check_file(s, path_in_mount("x"), 1, 0, 0);
	assert_int_equal(lc_store_extent(s, size, 0, &e), 0);
	assert_false(e.hole);
	assert_int_equal(e.len_bytes, size);
	lc_store_close(s);
	assert_int_equal(umount(mount_point), 0);
	lc_free(buf, 68 * KIB);
}

/* --- what is said beforehand --- */

/* Looking must not change a file, nor what somebody has allocated behind its end. */
static void looking(void **state)
{
	static const u64 sizes[] = {1, 5000, 1 << 20, (1ull << 40) + 512};
	const char *path;
	struct lc_store *s;
	struct stat a, b;
	int fd;

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		path = make_filled("looking", 1, 1);
		assert_int_equal(truncate(path, (off_t)sizes[i]), 0);
		fd = open(path, O_RDWR);
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)sizes[i], 1 << 20))
			print_message("no space can be allocated behind the end\n");
		assert_int_equal(fstat(fd, &a), 0);
		s = open_store(path);
		lc_store_close(s);
		assert_int_equal(fstat(fd, &b), 0);
		assert_int_equal(a.st_size, b.st_size);
		assert_int_equal(a.st_blocks, b.st_blocks);
		close(fd);
	}
}

/* What the flags promise is so. The other way round: where they deny it, trying does no harm. */
static void flags_are_true(void **state)
{
	const char *path = make_filled("flags", SIZE, 1);
	struct lc_store *s = open_store(path);
	int rc;

	(void)state;
	rc = lc_store_zero(s, 4096, 0, true);
	assert_true(rc == 0 || (rc == -EOPNOTSUPP && !s->can_punch));
	rc = lc_store_zero(s, 4096, 0, false);
	assert_true(rc == 0 || (rc == -EOPNOTSUPP && !s->can_zero));
	print_message("this file system: can_zero %d, can_punch %d\n", s->can_zero, s->can_punch);
	lc_store_close(s);
}

/* tmpfs punches, and has no other way to zero. */
static void punch_only(void **state)
{
	struct lc_store *s;
	int fd;

	(void)state;
	if (!mount_fs("tmpfs", "tmpfs", "size=2m"))
		SKIP("cannot mount a tmpfs");
	fd = open(path_in_mount("x"), O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, mount_point, 100), 100);
	close(fd);
	s = open_store(path_in_mount("x"));
	assert_true(s->can_punch);
	assert_int_equal(lc_store_zero(s, 100, 0, false), s->can_zero ? 0 : -EOPNOTSUPP);
	assert_int_equal(lc_store_zero(s, 100, 0, true), 0);
	assert_int_equal(space_of(path_in_mount("x")), 0);
	lc_store_close(s);
	assert_int_equal(umount(mount_point), 0);
}

/* --- no fallocate --- */

static int without_fallocate(void *arg)
{
	u8 *buf = lc_alloc(SIZE);
	struct lc_store *s;

	if (!deny(SYS_fallocate, -1, 0, *(const int *)arg))
		return CHILD_SKIPS;
	MUST(lc_file_open(path_of("no"), 0, &s, NULL) == 0);
	MUST(!s->can_zero && !s->can_punch);
	MUST(lc_store_zero(s, SIZE, 0, true) == -EOPNOTSUPP);
	MUST(lc_store_zero(s, SIZE, 0, false) == -EOPNOTSUPP);
	MUST(lc_store_read(s, buf, SIZE, 0) == 0);
	for (u64 i = 0; i < SIZE; i++)
		MUST(buf[i] == pattern(i, 1));
	return 0;
}

static int without_punch(void *arg)
{
	u8 *buf = lc_alloc(SIZE);
	struct lc_store *s = arg;

	if (!deny(SYS_fallocate, 1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, EOPNOTSUPP))
		return CHILD_SKIPS;
	MUST(lc_store_zero(s, SIZE, 0, true) == 0);
	MUST(lc_store_read(s, buf, SIZE, 0) == 0);
	for (u64 i = 0; i < SIZE; i++)
		MUST(buf[i] == 0);
	return 0;
}

/* A real error is passed on, not tried around. */
static int broken_punch(void *arg)
{
	if (!deny(SYS_fallocate, 1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, EIO))
		return CHILD_SKIPS;
	MUST(lc_store_zero(arg, SIZE, 0, true) == -EIO);
	return 0;
}

static void succeeds(int rc)
{
	if (rc == CHILD_SKIPS)
		SKIP("no seccomp filters here");
	assert_int_equal(rc, 0);
}

static void no_fallocate(void **state)
{
	static const int errs[] = {EOPNOTSUPP, ENOSYS, EPERM};

	(void)state;
	make_filled("no", SIZE, 1);
	for (unsigned i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		succeeds(in_child(without_fallocate, (void *)(uintptr_t)&errs[i]));
}

static void no_punch(void **state)
{
	const char *path = make_filled("no", SIZE, 1);
	struct lc_store *s = open_if_can(path, false);
	u64 before = space_of(path);

	(void)state;
	succeeds(in_child(without_punch, s));
	check_file(s, path, 1, 0, SIZE);
	assert_int_equal(space_of(path), before);
	succeeds(in_child(broken_punch, s));
	lc_store_close(s);
}

/* --- where the holes are --- */

/* From OFFSET on, up to LEN: HOLE or data, so far. */
static void check_extent(struct lc_store *s, u64 offset, u64 len, bool hole, u64 expected)
{
	struct lc_extent e;

	assert_int_equal(lc_store_extent(s, len, offset, &e), 0);
	if (e.hole != hole || e.len_bytes != expected)
		fail_msg("%llu bytes from %llu: %s of %llu instead of %s of %llu",
			 (unsigned long long)len, (unsigned long long)offset,
			 e.hole ? "hole" : "data", (unsigned long long)e.len_bytes,
			 hole ? "hole" : "data", (unsigned long long)expected);
}

/* A file with data in [64 KiB, 128 KiB) and in [192 KiB, 192 KiB + 100), and 17 bytes behind 256 KiB. */
static const char *make_sparse(const char *name)
{
	const char *path = path_of(name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	u8 buf[4096];

	fill(buf, sizeof(buf), 0, 1);
	for (u64 at = 64 * KIB; at < 128 * KIB; at += 4096)
		assert_int_equal(pwrite(fd, buf, 4096, (off_t)at), 4096);
	assert_int_equal(pwrite(fd, buf, 100, 192 * KIB), 100);
	assert_int_equal(ftruncate(fd, SIZE + 17), 0);
	close(fd);
	return path;
}

static void extents(void **state)
{
	const u64 size = SIZE + 17;
	struct lc_store *s = open_store(make_sparse("sparse"));
	struct lc_extent e;

	(void)state;
	assert_int_equal(lc_store_extent(s, size, 0, &e), 0);
	if (!e.hole) {
		lc_store_close(s);
		SKIP("this file system does not tell where holes are");
	}
	check_extent(s, 0, size, true, 64 * KIB);
	check_extent(s, 64 * KIB, size - 64 * KIB, false, 64 * KIB);
	check_extent(s, 128 * KIB, size - 128 * KIB, true, 64 * KIB);
	check_extent(s, 192 * KIB, size - 192 * KIB, false, 4096);
	/* The last one goes to the end of the file, which is no block's. */
	check_extent(s, 196 * KIB, size - 196 * KIB, true, 60 * KIB + 17);
	check_extent(s, size - 1, 1, true, 1);
	/* Any alignment, and never further than asked. */
	check_extent(s, 1, 1, true, 1);
	check_extent(s, 777, 10000, true, 10000);
	check_extent(s, 64 * KIB - 1, 2, true, 1);
	check_extent(s, 64 * KIB + 1, 100 * KIB, false, 64 * KIB - 1);
	check_extent(s, 65 * KIB, 512, false, 512);
	lc_store_close(s);
}

static void extents_change(void **state)
{
	const char *path = make_filled("change", SIZE + 17, 1);
	struct lc_store *s = open_if_can(path, true);
	u8 *buf = lc_alloc(4096);

	(void)state;
	check_extent(s, 0, SIZE + 17, false, SIZE + 17);
	check_extent(s, SIZE, 17, false, 17);
	check_extent(s, SIZE + 16, 1, false, 1);
	assert_int_equal(lc_store_zero(s, 64 * KIB, 64 * KIB, true), 0);
	check_extent(s, 0, SIZE, false, 64 * KIB);
	check_extent(s, 64 * KIB, SIZE - 64 * KIB, true, 64 * KIB);
	/* Written to the page cache alone: no hole any more. */
	assert_int_equal(lc_store_zero(s, SIZE + 17, 0, true), 0);
	check_extent(s, 0, SIZE + 17, true, SIZE + 17);
	fill(buf, 4096, 0, 2);
	assert_int_equal(lc_store_write(s, buf, 4096, SIZE), 0);
	check_extent(s, 0, SIZE + 17, true, SIZE);
	check_extent(s, SIZE, 17, false, 17);
	assert_int_equal(lc_store_write(s, buf, 4096, 8192), 0);
	check_extent(s, 8192, SIZE - 8192, false, 4096);
	/* A file that shrank: nothing that could be read as zeros is claimed. */
	assert_int_equal(truncate(path, 64 * KIB), 0);
	check_extent(s, 96 * KIB, 4096, false, 4096);
	assert_int_equal(lc_store_read(s, buf, 4096, 96 * KIB), -EIO);
	lc_free(buf, 4096);
	lc_store_close(s);
}

static int without_seek(void *arg)
{
	struct lc_store *s = arg;
	struct lc_extent e;

	if (!deny(SYS_lseek, 2, SEEK_DATA, EINVAL))
		return CHILD_SKIPS;
	MUST(lc_store_extent(s, SIZE, 0, &e) == 0);
	MUST(!e.hole && e.len_bytes == SIZE);
	MUST(lc_store_extent(s, 5, 100, &e) == 0);
	MUST(!e.hole && e.len_bytes == 5);
	return 0;
}

static int broken_seek(void *arg)
{
	struct lc_extent e;

	if (!deny(SYS_lseek, 2, SEEK_HOLE, EIO))
		return CHILD_SKIPS;
	MUST(lc_store_extent(arg, SIZE - 64 * KIB, 64 * KIB, &e) == -EIO);
	return 0;
}

static void no_seek(void **state)
{
	struct lc_store *s = open_store(make_sparse("noseek"));

	(void)state;
	succeeds(in_child(without_seek, s));
	succeeds(in_child(broken_seek, s));
	lc_store_close(s);
}

/* Several threads ask at once: the position of the descriptor is common, and means nothing. */
static void ask_main(void *arg)
{
	struct tail_writer *w = arg;

	for (unsigned i = 0; i < 2000; i++) {
		bool second = i % 2;
		struct lc_extent e;

		w->wrong += lc_store_extent(w->s, SIZE - 128 * KIB, second ? 128 * KIB : 0, &e) != 0;
		w->wrong += !e.hole || e.len_bytes != 64 * KIB;
	}
}

static void many_ask(void **state)
{
	struct lc_store *s = open_store(make_sparse("many"));
	struct tail_writer w[4];
	struct lc_thread t[4];
	struct lc_extent e;

	(void)state;
	assert_int_equal(lc_store_extent(s, SIZE, 0, &e), 0);
	if (!e.hole) {
		lc_store_close(s);
		SKIP("this file system does not tell where holes are");
	}
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct tail_writer){.s = s};
		assert_int_equal(lc_thread_start(&t[i], "test-ask", ask_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		lc_thread_join(&t[i]);
		assert_int_equal(w[i].wrong, 0);
	}
	lc_store_close(s);
}

#define TEST(f) cmocka_unit_test_setup(f, test_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(punch),	      TEST(keep_space), TEST(odd_ends),	      TEST(beside_the_tail),
		TEST(without_direct), TEST(looking),	TEST(flags_are_true), TEST(punch_only),
		TEST(no_fallocate),   TEST(no_punch),	TEST(extents),	      TEST(extents_change),
		TEST(no_seek),	      TEST(many_ask),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
