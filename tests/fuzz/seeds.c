/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * seeds.c - writes the seed corpus: `seeds FOLDER` makes FOLDER/page, record, image and params.
 *
 * The seeds are in the repository; this is how they came to be. The files named regress-* are not
 * from here: each is a bug that a fuzzer found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"

static const char *folder;
static struct fuzz_store ssd, backing[IMAGE_VOLUMES];

static void save(const char *target, const char *name, const void *data, size_t n)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", folder, target);
	mkdir(path, 0777); /* it may be there */
	snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f)) {
		perror(path);
		exit(1);
	}
}

/* A block behind the byte that says what to do with it, without the zeros at its end. */
static void save_block(const char *target, const char *name, u8 flags, const u8 *block)
{
	u8 data[1 + LC_BLOCK];
	size_t n = LC_BLOCK;

	while (n > 64 && !block[n - 1])
		n--;
	data[0] = flags;
	memcpy(data + 1, block, n);
	save(target, name, data, n + 1);
}

/* Of each template its first page of each sort, its first header and its first summary. */
static void save_blocks(unsigned number, const struct image_template *t)
{
	static const u32 pages[] = {LC_PAGE_SUPERBLOCK, LC_PAGE_VOLUMES, LC_PAGE_BAD};
	bool record = false, summary = false;
	char name[64];

	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "page%u-template%u", pages[i], number);
		save_block("page", name, 3 | pages[i] << 2, t->ssd + (size_t)pages[i] * 2 * LC_BLOCK);
	}
	for (u32 b = 256; b < t->ssd_bytes / LC_BLOCK; b++) {
		const u8 *block = t->ssd + (size_t)b * LC_BLOCK;

		if (layout_kind(block) == KIND_RECORD && !record) {
			snprintf(name, sizeof name, "record-template%u", number);
			save_block("record", name, 3, block);
			record = true;
		} else if (layout_kind(block) == KIND_SUMMARY && !summary) {
			snprintf(name, sizeof name, "summary-template%u", number);
			save_block("record", name, 7, block);
			summary = true;
		}
	}
}

static void save_image(const char *name, struct image_head head, struct image_step step)
{
	u8 data[sizeof head + sizeof step];

	memcpy(data, &head, sizeof head);
	memcpy(data + sizeof head, &step, sizeof step);
	save("image", name, data, step.op || step.kind || step.value ? sizeof data : sizeof head);
}

static void save_images(unsigned number)
{
	const struct image_head plain = {.template = number, .seed = number};
	const struct image_head fixed = {.template = number,
					 .fix = FIX_BLOCKS | FIX_SAMPLES,
					 .seed = number};
	static const struct {
		const char *name;
		u8 fix, life;
		struct image_step step;
		u8 disk;
	} damages[] = {
		{"tail", FIX_BLOCKS, 0, {IMAGE_ADD, KIND_BOTH_SB, 0, 0, 12, 0, 0, 1}, 0},
		{"durable", FIX_BLOCKS, LIFE_ABANDON, {IMAGE_ADD, KIND_BOTH_SB, 0, 0, 14, 0, 0, 1}, 0},
		{"one-superblock", 0, 0, {IMAGE_ERASE, KIND_SB, 0, 0, 0, 0, 0, 0}, 0},
		{"swap", FIX_BLOCKS, 0, {IMAGE_SWAP, 0, 0, 1, 0, 0, 0, 0}, 0},
		{"copy", FIX_BLOCKS, 0, {IMAGE_COPY, 0, 1, 2, 0, 0, 0, 0}, 0},
		{"erase", FIX_BLOCKS, 0, {IMAGE_ERASE, 0, 2, 0, 0, 0, 0, 0}, 0},
		{"lap", FIX_BLOCKS, LIFE_MANY_WRITES, {IMAGE_LAP, 0, 3, 0, 0, 0, 0, 8}, 0},
		{"epoch", FIX_BLOCKS, 0, {IMAGE_ALL, 0, 1, 0, 2, 0, 0, 1}, 0},
		{"rot", 0, LIFE_IDLE, {IMAGE_FLIP, KIND_BLOCK, 1, 1, 0, 0, 99, 0}, 0},
		{"rot-header", 0, 0, {IMAGE_FLIP, KIND_HEADER, 1, 1, 0, 0, 99, 0}, 0},
		{"record", FIX_BLOCKS, 0, {IMAGE_RECORD, 0, 4, 0, 3, 0, 5, 20}, 0},
		{"record-in-chain", FIX_BLOCKS, 0, {IMAGE_RECORD, 0, 2, 3, 1, 0, 5, 30}, 0},
		{"summary", FIX_BLOCKS, 0, {IMAGE_SUMMARY, 0, 1, 0, 0, 0, 0, 0}, 0},
		{"data", FIX_BLOCKS | FIX_DATA, 0, {IMAGE_RAW, KIND_BLOCK, 2, 2, 0, 0, 512, 12345}, 0},
		{"lost", FIX_BLOCKS, LIFE_MANY_WRITES, {IMAGE_LOST, KIND_LOST, 0, 0, 1, 0, 20, 5}, 0},
		{"from-seq", FIX_BLOCKS, 0, {IMAGE_SET, KIND_VOLUMES, 0, 0, 4, 0, 0, 9}, 0},
		{"zero", FIX_BLOCKS, 0, {IMAGE_ZERO, KIND_HEADER, 1, 0, 0, 0, 0, 9}, DISK_ZEROES},
		{"trim", FIX_BLOCKS, LIFE_IDLE, {IMAGE_ZERO, KIND_HEADER, 2, 0, 0, 1, 0, 5}, DISK_SLOW_ZERO},
		{"zero-beyond", FIX_BLOCKS, 0, {IMAGE_ZERO, KIND_HEADER, 1, 0, 0, 2, 50, 30}, 0},
		{"zero-in-summary",
		 FIX_BLOCKS,
		 0,
		 {IMAGE_ZERO, KIND_LAST, 1, 0, 1, 0, 0, 3},
		 DISK_ZERO_FAILS},
		{"zero-record",
		 FIX_BLOCKS,
		 LIFE_MANY_WRITES,
		 {IMAGE_RECORD, 0, 2, 3, 4, 0, 7, 0x02000003},
		 DISK_ZEROES | DISK_NO_PUNCH},
	};
	char name[64];

	snprintf(name, sizeof name, "template%u", number);
	save_image(name, plain, (struct image_step){0});
	snprintf(name, sizeof name, "template%u-zeroes", number);
	save_image(name,
		   (struct image_head){.template = number,
				       .disk = DISK_ZEROES | (number & 7),
				       .life = number & 1 ? LIFE_IDLE : 0},
		   (struct image_step){0});
	snprintf(name, sizeof name, "template%u-unreadable", number);
	save_image(name,
		   (struct image_head){.template = number,
				       .unreadable = 1 + number,
				       .unreadable_at = number},
		   (struct image_step){0});
	snprintf(name, sizeof name, "template%u-grown", number);
	save_image(name,
		   (struct image_head){.template = number,
				       .specs = SPEC_GROWN | SPEC_SWAPPED | SPEC_4K},
		   (struct image_step){0});
	for (unsigned i = number; i < sizeof damages / sizeof *damages; i += 2) {
		struct image_head head = fixed;

		head.fix &= damages[i].fix | FIX_SAMPLES;
		head.fix |= damages[i].fix;
		head.life = damages[i].life;
		head.disk = damages[i].disk;
		snprintf(name, sizeof name, "template%u-%s", number, damages[i].name);
		save_image(name, head, damages[i].step);
	}
}

static void save_params(void)
{
	static const char *const texts[][2] = {
		{"least", "cache=/dev/fast\nbacking=disk.img\n"},
		{"all",
		 "cache=c\nbacking=b\ncache-size=2G\nformat=force\nsegment-size=64K\nwriteback=off\n"
		 "dirty-low=0\nflush-interval=3600000\non-exit=drain\nstats-interval=86400\n"},
		{"twice", "cache=a\ncache=b\n"},
		{"uri", "backing=nbd://host/x\nbacking-fence=5\nbacking-timeout=9\n"},
		{"unix",
		 "backing=nbds+unix://al@/x?socket=/s&tls-psk-file=%2Fk\nbacking-without-flush=accept\n"},
		{"empty", "cache=\nbacking=\n"},
		{"sizes", "cache-size=9223372036854775807\n"},
		{"small", "cache=a\nbacking=b\nsegment-size=1M\ncache-size=1M\n"},
		{"unknown", "cash=a\n"},
		{"out-of-range", "dirty-low=101\n"},
	};

	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
		save("params", texts[i][0], texts[i][1], strlen(texts[i][1]));
}

int main(int argc, char **argv)
{
	struct image_head head;

	if (argc != 2) {
		fprintf(stderr, "usage: seeds FOLDER\n");
		return 2;
	}
	folder = argv[1];
	world_begin();
	world_store_create(&ssd, "ssd");
	world_store_create(&backing[0], "backing");
	world_store_create(&backing[1], "backing-b");
	image_init(&ssd, backing);
	for (unsigned i = 0; i < IMAGE_NR_TEMPLATES; i++) {
		u8 number = i;

		save_blocks(i, image_build(&number, 1, &head));
		save_images(i);
	}
	save_params();
	return 0;
}
