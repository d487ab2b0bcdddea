/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_io_device.c - block devices with sectors of 512 and 4096 bytes, and files on them; sizes that
 * are no multiple of the sector. On loop devices, where root may have them.
 */
#include "test_io.h"

#include <sys/sysmacros.h>

#include "logcache/rt.h"

static const unsigned kinds[] = {0, LC_FILE_IO_URING, LC_FILE_IO_AIO};

/* One I/O through a queue of each kind that there is. */
static void queued(struct lc_store *s, enum lc_io_op op, void *buf, u32 n, u64 offset)
{
	struct lc_io io = {.op = op, .buf = buf, .len_bytes = n, .offset_bytes = offset};
	struct lc_queue *q;

	if (lc_queue_open(s, 4, NULL, 0, &q, NULL))
		SKIP("this kind of queue does not exist here");
	lc_queue_submit(q, &io);
	assert_ptr_equal(lc_queue_wait(q, LC_FOREVER), &io);
	assert_int_equal(io.result, 0);
	lc_queue_close(q);
}

/* All that a store does, at its beginning, its end, and in the smallest units it takes. */
static void exercise(const char *path, u64 size, u32 block_bytes)
{
	u32 whole = (u32)((size + 4095) / 4096 * 4096);
	u64 last = whole - 4096;
	u8 *buf = lc_alloc(whole);

	for (unsigned k = 0; k < 3; k++) {
		struct lc_store *s;

		store_flags = kinds[k];
		s = open_store(path);
		assert_int_equal(s->size_bytes, size);
		assert_int_equal(s->block_bytes, block_bytes);
		fill(buf, whole, 0, k);
		queued(s, LC_IO_WRITE, buf, whole, 0);
		queued(s, LC_IO_FLUSH, NULL, 0, 0);
		memset(buf, 0xee, whole);
		queued(s, LC_IO_READ, buf, whole, 0);
		check_filled(buf, size, 0, k);
		check_zero(buf + size, whole - size);
		/* The smallest unit, at both ends. */
		fill(buf, block_bytes, block_bytes, k + 10);
		queued(s, LC_IO_WRITE, buf, block_bytes, block_bytes);
		fill(buf, 4096, last, k + 20);
		assert_int_equal(lc_store_write(s, buf, 4096, last), 0);
		memset(buf, 0xee, whole);
		assert_int_equal(lc_store_read(s, buf, whole, 0), 0);
		check_filled(buf, block_bytes, 0, k);
		check_filled(buf + block_bytes, block_bytes, block_bytes, k + 10);
		check_filled(buf + 2 * block_bytes, last - 2 * block_bytes, 2 * block_bytes, k);
		check_filled(buf + last, size - last, last, k + 20);
		lc_store_close(s);
	}
	lc_free(buf, whole);
}

/* Zero the end of the store, then the middle, then all of it, in both ways. */
static void exercise_zero(const char *path, u64 size)
{
	u32 whole = (u32)((size + 4095) / 4096 * 4096);
	u64 last = whole - 4096;
	u8 *buf = lc_alloc(whole);
	struct lc_store *s = open_store(path);

	for (unsigned punch = 0; punch < 2; punch++) {
		fill(buf, whole, 0, punch);
		assert_int_equal(lc_store_write(s, buf, whole, 0), 0);
		assert_int_equal(lc_store_zero(s, size - last, last, punch), 0);
		assert_int_equal(lc_store_zero(s, 65536, 16384, punch), 0);
		assert_int_equal(lc_store_flush(s), 0);
		memset(buf, 0xee, whole);
		assert_int_equal(lc_store_read(s, buf, whole, 0), 0);
		check_filled(buf, 16384, 0, punch);
		check_zero(buf + 16384, 65536);
		check_filled(buf + 81920, last - 81920, 81920, punch);
		check_zero(buf + last, 4096);
		assert_int_equal(lc_store_zero(s, size, 0, punch), 0);
		assert_int_equal(lc_store_read(s, buf, whole, 0), 0);
		check_zero(buf, whole);
	}
	lc_store_close(s);
	lc_free(buf, whole);
}

static u64 limit_of(const char *dev, const char *name)
{
	unsigned long long n = 0;
	char path[200];
	FILE *p;

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", strrchr(dev, '/') + 1, name);
	p = fopen(path, "r");
	if (!p)
		return 0;
	if (fscanf(p, "%llu", &n) != 1)
		n = 0;
	fclose(p);
	return n;
}

static void device(unsigned sector_bytes, u64 size)
{
	const char *path = make_file("image", size);
	struct lc_store *s;
	struct lc_extent e;
	struct stat st;
	char dev[64];

	if (!attach_loop(path, sector_bytes, dev))
		SKIP("no loop devices");
	/* The kernel counts in 512 bytes, whatever the sectors are. */
	size = size / 512 * 512;
	exercise(dev, size, sector_bytes);
	exercise_zero(dev, size);
	s = open_store(dev);
	assert_int_equal(s->can_zero, limit_of(dev, "write_zeroes_max_bytes") > 0);
	assert_int_equal(s->can_punch, s->can_zero && limit_of(dev, "discard_max_bytes") > 0);
	/* A device does not tell where its holes are; the file under it has some now. */
	assert_int_equal(lc_store_extent(s, size - 5, 3, &e), 0);
	assert_false(e.hole);
	assert_int_equal(e.len_bytes, size - 5);
	if (s->can_punch) {
		assert_int_equal(lc_store_flush(s), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_true((u64)st.st_blocks * 512 <= 4096);
	}
	lc_store_close(s);
	detach_loop(dev);
}

static void sectors_512(void **state)
{
	(void)state;
	device(512, 1 << 20);
	device(512, (1 << 20) + 3 * 512);
}

static void sectors_4096(void **state)
{
	(void)state;
	device(4096, 1 << 20);
	device(4096, (1 << 20) + 4096);
}

/* Sectors of 4096 bytes, and half of one at the end: not every kernel shows the rest. */
static void sectors_4096_odd(void **state)
{
	const char *path = make_file("image", (1 << 20) + 3 * 512);
	struct lc_error err;
	struct lc_store *s;
	char dev[64];
	u64 size;
	int rc;

	(void)state;
	if (!attach_loop(path, 4096, dev))
		SKIP("no loop devices");
	rc = lc_file_open(dev, 0, &s, &err);
	if (rc) {
		/* Either the last bytes can be used, or the message says why not. */
		assert_int_equal(rc, -EIO);
		assert_non_null(strstr(err.text, "last byte"));
	} else {
		size = s->size_bytes;
		lc_store_close(s);
		exercise(dev, size, 4096);
		exercise_zero(dev, size);
	}
	detach_loop(dev);
}

/* A partition has the limits of its disk. */
static void partition(void **state)
{
	const char *path = make_file("image", 4 << 20);
	unsigned major_nr, minor_nr;
	bool can_zero, can_punch;
	char dev[64], node[400];
	struct lc_store *s;
	FILE *p;

	(void)state;
	if (!attach_loop(path, 512, dev))
		SKIP("no loop devices");
	s = open_store(dev);
	can_zero = s->can_zero;
	can_punch = s->can_punch;
	lc_store_close(s);
	/* Not every kernel reads partition tables; adding a partition by hand does without. */
	snprintf(node, sizeof(node), "/sys/class/block/%sp1/dev", strrchr(dev, '/') + 1);
	if (!shell("addpart %s 1 2048 4096 2>/dev/null", dev) || !(p = fopen(node, "r"))) {
		detach_loop(dev);
		SKIP("loop devices have no partitions here");
	}
	assert_int_equal(fscanf(p, "%u:%u", &major_nr, &minor_nr), 2);
	fclose(p);
	snprintf(node, sizeof(node), "%s/part", dir);
	assert_int_equal(mknod(node, S_IFBLK | 0600, makedev(major_nr, minor_nr)), 0);
	s = open_store(node);
	assert_int_equal(s->size_bytes, 2 << 20);
	assert_int_equal(s->can_zero, can_zero);
	assert_int_equal(s->can_punch, can_punch);
	lc_store_close(s);
	exercise_zero(node, 2 << 20);
	assert_true(shell("delpart %s 1", dev));
	detach_loop(dev);
}

/* A file on a disk with large sectors: its unit of O_DIRECT is theirs, its size is anything. */
static void file_on_4096(void **state)
{
	static const u64 sizes[] = {1 << 20, (1 << 20) + 512, (1 << 20) + 4095};
	const char *path = make_file("image", 16 << 20);
	char dev[64];

	(void)state;
	if (!attach_loop(path, 4096, dev))
		SKIP("no loop devices");
	if (!shell("mkfs.ext4 -q -b 4096 %s 2>/dev/null", dev) || !mount_fs(dev, "ext4", NULL)) {
		detach_loop(dev);
		SKIP("cannot make and mount an ext4");
	}
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(lc_file_create(path_in_mount("x"), sizes[i], NULL), 0);
		exercise(path_in_mount("x"), sizes[i], 4096);
		exercise_zero(path_in_mount("x"), sizes[i]);
		assert_int_equal(size_of(path_in_mount("x")), sizes[i]);
		assert_int_equal(unlink(path_in_mount("x")), 0);
	}
	assert_int_equal(umount(mount_point), 0);
	detach_loop(dev);
}

/* ext4 without extents can punch, and has no unwritten blocks. */
static void file_of_ext3(void **state)
{
	const char *path = make_file("image", 16 << 20);
	struct lc_store *s;
	char dev[64];

	(void)state;
	if (!attach_loop(path, 512, dev))
		SKIP("no loop devices");
	if (!shell("mkfs.ext3 -q -b 4096 %s 2>/dev/null", dev) || !mount_fs(dev, "ext4", NULL)) {
		detach_loop(dev);
		SKIP("cannot make an ext3 and mount it as ext4");
	}
	assert_int_equal(lc_file_create(path_in_mount("x"), 1 << 20, NULL), 0);
	s = open_store(path_in_mount("x"));
	assert_true(s->can_punch);
	assert_false(s->can_zero);
	assert_int_equal(lc_store_zero(s, 1 << 20, 0, false), -EOPNOTSUPP);
	assert_int_equal(lc_store_zero(s, 1 << 20, 0, true), 0);
	lc_store_close(s);
	assert_int_equal(umount(mount_point), 0);
	detach_loop(dev);
}

#define TEST(f) cmocka_unit_test_setup(f, test_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sectors_512), TEST(sectors_4096), TEST(sectors_4096_odd),
		TEST(partition),   TEST(file_on_4096), TEST(file_of_ext3),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
