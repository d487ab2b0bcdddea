/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_image.c - a cache that is full, made in seconds: for measuring how long opening one takes.
 *
 *	cache-image --blocks=N --backing-size=BYTES PATH
 *
 * PATH becomes a sparse file: the metadata, and in each sealed segment two headers and the summary, as the engine leaves them
 * behind for a workload of random writes that flushed now and then. All blocks are different ones, clean, and hold nothing: their
 * data is a hole, so they cannot be read. The volume is the default export over a backing store of BYTES that is all zeros
 * (truncate -s BYTES).
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/shuffle.h"
#include "cache.h"
#include "file.h"
#include "fingerprint.h"

#define SEGMENT_BLOCKS 256u
#define FIRST_RECORD 126u /* blocks of the first record of a segment; the second fills it up */
#define ENTRIES (SEGMENT_BLOCKS - 3u)
#define SPARE_SEGMENTS 8u

static struct lc_error error;

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "cache-image: %s: %s\n", what, why);
	exit(1);
}

static void must(int ret)
{
	if (ret < 0)
		die("the engine", error.text[0] ? error.text : strerror(-ret));
}

struct image {
	const char *path;
	u64 blocks, backing_bytes;
	u64 nr_segments; /* sealed ones */
	struct lc_superblock sb;
	u8 uuid[LC_UUID_BYTES];
	struct shuffle shuffle;
};

/* Format, one volume, and a superblock that says: all of this is durable and written back. */
static void write_metadata(struct image *m)
{
	struct lc_format_options options = {.segment_bytes = SEGMENT_BLOCKS * LC_BLOCK};
	struct lc_volume_entry *v;
	struct lc_mutex lock;
	struct lc_store *ssd;
	struct lc_meta meta;
	static u8 zeros[LC_BLOCK];

	must(lc_file_open(m->path, 0, &ssd, &error));
	must(lc_cache_format(ssd, &options, &error));
	must(lc_meta_load(&meta, ssd, &error));
	lc_mutex_init(&lock);
	v = &meta.volumes[1];
	v->id = 1;
	v->size_bytes = m->backing_bytes;
	v->from_seq = 1;
	memcpy(v->uuid, meta.uuid, LC_UUID_BYTES);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		v->samples[i] = lc_crc32c(zeros, LC_BLOCK);
	meta.sb.tail_id = m->nr_segments;
	meta.sb.tail_seq = 2 * m->nr_segments + 1;
	meta.sb.durable_seq = 2 * m->nr_segments;
	meta.sb.clean = true;
	if (meta.sb.nr_segments < m->nr_segments)
		die(m->path, "has too few segments: a bug");
	for (unsigned page = LC_PAGE_SUPERBLOCK; page <= LC_PAGE_VOLUMES; page++)
		must(lc_meta_write(&meta, &lock, page,
				   (struct lc_flusher){lc_meta_flush_store, NULL, ssd}));
	m->sb = meta.sb;
	memcpy(m->uuid, meta.uuid, LC_UUID_BYTES);
	lc_mutex_destroy(&lock);
	lc_meta_destroy(&meta);
	lc_store_close(ssd);
}

static void put(const struct image *m, int fd, const void *block, u64 id, u32 position)
{
	u64 slot = m->sb.zone_blocks + (id - 1) * SEGMENT_BLOCKS + position;

	if (pwrite(fd, block, LC_BLOCK, (off_t)(slot * LC_BLOCK)) != LC_BLOCK)
		die(m->path, strerror(errno));
}

static void write_segment(const struct image *m, int fd, u64 id)
{
	static struct lc_slot entries[ENTRIES];
	static u8 block[LC_BLOCK];
	struct lc_summary_info summary = {
		.segment_id = id,
		.first_seq = 2 * id - 1,
		.last_seq = 2 * id,
		.epoch = 1,
		.nr_records = 2,
		.nr_entries = ENTRIES,
		.nr_blocks = {FIRST_RECORD, ENTRIES - FIRST_RECORD},
	};
	struct lc_record_info record = {.segment_id = id, .epoch = 1, .first = 1};

	memcpy(summary.uuid, m->uuid, LC_UUID_BYTES);
	memcpy(record.uuid, m->uuid, LC_UUID_BYTES);
	for (u32 i = 0; i < ENTRIES; i++) {
		u64 nr = (id - 1) * ENTRIES + i;

		entries[i].key = lc_key(1, shuffle_at(&m->shuffle, nr), LC_MASK_FULL, LC_ENTRY_DATA);
		entries[i].crc = (u32)nr;
	}
	for (u32 i = 0, at = 0; i < 2; i++) {
		record.seq = summary.first_seq + i;
		record.durable_seq = record.seq - 1;
		record.position = at + i;
		record.nr_entries = summary.nr_blocks[i];
		lc_record_encode(block, &record, entries + at);
		put(m, fd, block, id, record.position);
		at += record.nr_entries;
	}
	lc_summary_encode(block, &summary, entries);
	put(m, fd, block, id, SEGMENT_BLOCKS - 1);
}

static u64 number(const char *text)
{
	char *end;
	u64 n = strtoull(text, &end, 10);

	if (end == text || *end)
		die(text, "is not a number");
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"blocks", required_argument, NULL, 'b'},
		{"backing-size", required_argument, NULL, 's'},
		{0},
	};
	struct image m = {0};
	u64 size_blocks;
	int c, fd;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			m.blocks = number(optarg);
		else if (c == 's')
			m.backing_bytes = number(optarg);
		else
			return 1;
	}
	if (optind + 1 != argc || !m.blocks || m.backing_bytes / LC_BLOCK < m.blocks)
		die("usage", "cache-image --blocks=N --backing-size=BYTES PATH; the backing store "
			     "must have so many blocks");
	m.path = argv[optind];
	m.nr_segments = (m.blocks + ENTRIES - 1) / ENTRIES;
	m.shuffle = shuffle_init(m.backing_bytes / LC_BLOCK, 1);

	/* and the zone, which is 1/512 of the whole in full MiB */
	size_blocks = (m.nr_segments + SPARE_SEGMENTS) * SEGMENT_BLOCKS;
	size_blocks += size_blocks / 500 + 2 * SEGMENT_BLOCKS;
	fd = open(m.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)(size_blocks * LC_BLOCK)) < 0)
		die(m.path, strerror(errno));
	write_metadata(&m);
	for (u64 id = 1; id <= m.nr_segments; id++)
		write_segment(&m, fd, id);
	/* Later reads shall come from the device. */
	if (fsync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) || close(fd) < 0)
		die(m.path, strerror(errno));
	/* Where the scan of the segments begins: each next one is a segment further. */
	printf("{\"segments\": %ju, \"first_summary\": %ju, \"stride\": %u}\n",
	       (uintmax_t)m.nr_segments,
	       (uintmax_t)(m.sb.zone_blocks + SEGMENT_BLOCKS - 1) * LC_BLOCK,
	       SEGMENT_BLOCKS * LC_BLOCK);
	return 0;
}
