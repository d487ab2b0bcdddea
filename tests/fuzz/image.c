/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c - see image.h. */
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fingerprint.h"

#define ZONE 256u
#define TEMPLATE_STEPS 4000000u

/*
 * What the engine does to make a template, one letter each:
 *
 *	w a block	W seven blocks	p one sector	b a block of "b"
 *	z zeros in 20 blocks	t a trim of 6	y zeros in 17 blocks of "b"
 *	f flush		d drain
 *	c close, open again		x crash, open again
 *	r crash, a data block rots, open again
 *
 * At the end of the text the process is killed. Without any text the device is formatted, no more.
 */
static struct image_template templates[IMAGE_NR_TEMPLATES] = {
	{.what = "formatted", .segment_blocks = 8, .nr_segments = 8, .lives = NULL},
	{.what = "dirty", .segment_blocks = 8, .nr_segments = 8, .lives = "wwpwfwfWfpfbfwfWfwfpf"},
	{.what = "lapped",
	 .segment_blocks = 8,
	 .nr_segments = 6,
	 .lives = "WWWfdWWfwfwfdWWWfwfpfwfdwfwfWfbfwpfdwfpfwf"},
	{.what = "closed", .segment_blocks = 8, .nr_segments = 7, .lives = "WWfdWfwfbfcwfwfpfWfbfc"},
	{.what = "tiny segments",
	 .segment_blocks = 2,
	 .nr_segments = 16,
	 .lives = "wwwwfdwwwpfwwbfdwfwfpfbf"},
	{.what = "long chains",
	 .segment_blocks = 16,
	 .nr_segments = 5,
	 .lives = "wfwfwfwfwfwfwfwfwfpfpfpfbfbfWfdwfwfpfwfwfpfwfwf"},
	{.what = "lost blocks",
	 .segment_blocks = 8,
	 .nr_segments = 8,
	 .lives = "wfwfwfwfpfbfwfrwfdwfpfbfdwfwfxpfwf"},
	{.what = "crashes",
	 .segment_blocks = 8,
	 .nr_segments = 8,
	 .lives = "wfpfwfxwfbfxWfxpfwfdxwfpfxwfwf"},
	{.what = "zeros",
	 .segment_blocks = 8,
	 .nr_segments = 8,
	 .lives = "WfzfwdWtfwfybfdzwfpftwfzwfyftf"},
	{.what = "lapped zeros",
	 .segment_blocks = 16,
	 .nr_segments = 5,
	 .lives = "wfzfwftfbfyfdwfwfzfpfdtfwfwfWfzwfxzfwftfpfyfrzfwf"},
};

static struct fuzz_store *ssd, *backing;
static u8 *zeros; /* what the stores are before their first reset */

/* The life that makes the templates. */
static struct {
	const char *at; /* the letter that comes next */
	char end;
	u64 rng;
	u8 *buf;
} making;

u64 image_backing_bytes(unsigned volume)
{
	return volume ? 33 * LC_BLOCK + LC_SECTOR : 60 * LC_BLOCK - 100;
}

/* --- making templates --- */

static void make_write(struct lc_cache *c, unsigned volume, u32 len_bytes)
{
	u64 blocks = image_backing_bytes(volume) / LC_BLOCK - 8;
	u64 r = layout_random(&making.rng), offset = r % blocks * LC_BLOCK;

	if (len_bytes < LC_BLOCK)
		offset += (r >> 32) % LC_SECTORS_PER_BLOCK * LC_SECTOR;
	memset(making.buf, (int)(r >> 48), len_bytes);
	fuzz_check(!lc_write(lc_cache_volume(c, volume), making.buf, len_bytes, offset, 0),
		   "a write fails while the templates are made");
}

static void make_zeros(struct lc_cache *c, unsigned volume, u32 blocks, bool trim)
{
	u64 all = image_backing_bytes(volume) / LC_BLOCK;
	u64 offset = layout_random(&making.rng) % (all - blocks) * LC_BLOCK;
	struct lc_volume *v = lc_cache_volume(c, volume);
	int ret = trim ? lc_trim(v, (u64)blocks * LC_BLOCK, offset, 0) :
			 lc_zero(v, (u64)blocks * LC_BLOCK, offset, 0);

	fuzz_check(!ret, "zeros fail while the templates are made");
}

static void make_life(void *arg)
{
	struct lc_volume_spec specs[] = {{"", &backing[0].store}, {"b", &backing[1].store}};
	struct lc_settings settings;
	struct lc_cache *c;
	struct lc_error err;
	int ret = 0;

	(void)arg;
	lc_settings_init(&settings);
	settings.nr_buffers = 4;
	settings.dirty_low_percent = 100;
	settings.idle_ms = 0;
	settings.flush_interval_ms = 0;
	fuzz_check(!lc_cache_open(&ssd->store, specs, 2, &settings, &c, &err), "template: %s",
		   err.text);
	fuzz_check(!lc_cache_start(c, &err), "template: %s", err.text);
	for (;;) {
		making.end = *making.at;
		if (making.end)
			making.at++;
		switch (making.end) {
		case 'w':
			make_write(c, 0, LC_BLOCK);
			break;
		case 'W':
			make_write(c, 0, 7 * LC_BLOCK);
			break;
		case 'p':
			make_write(c, 0, LC_SECTOR);
			break;
		case 'b':
			make_write(c, 1, LC_BLOCK);
			break;
		case 'z':
			make_zeros(c, 0, 20, false);
			break;
		case 't':
			make_zeros(c, 0, 6, true);
			break;
		case 'y':
			make_zeros(c, 1, 17, false);
			break;
		case 'f':
			ret = lc_flush(lc_cache_volume(c, 0));
			break;
		case 'd':
			ret = lc_cache_drain(c);
			break;
		case 'c':
			ret = lc_cache_close(c);
			break;
		}
		fuzz_check(!ret, "template: '%c' fails: %d", making.end, ret);
		if (!making.end || strchr("cxr", making.end))
			return;
	}
}

static void make_format(void *arg)
{
	const struct image_template *t = arg;
	struct lc_format_options o = {.segment_bytes = t->segment_blocks * LC_BLOCK, .label = "fuzz"};
	struct lc_error err;

	fuzz_check(!lc_cache_format(&ssd->store, &o, &err), "template: %s", err.text);
}

static void make(struct image_template *t)
{
	bool more = t->lives;

	t->ssd_bytes = (u64)(ZONE + t->nr_segments * t->segment_blocks) * LC_BLOCK;
	fuzz_check(t->ssd_bytes <= STORE_BLOCKS_MAX * LC_BLOCK, "%s is too large", t->what);
	sim_seed(7);
	sim_history_begin(TEMPLATE_STEPS);
	world_store_reset(ssd, zeros, t->ssd_bytes, LC_SECTOR);
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		world_store_reset(&backing[i], zeros, image_backing_bytes(i), LC_SECTOR);
		for (u64 b = 0; b < image_backing_bytes(i) / LC_BLOCK; b++)
			memset(world_block(&backing[i], b), (int)(b + 1 + 64 * i), LC_BLOCK);
	}
	sim_life("format", make_format, t);
	world_life_end(false);
	making.at = t->lives;
	while (more) {
		sim_life("make", make_life, NULL);
		world_life_end(making.end != 'c');
		if (making.end == 'r')
			world_block(ssd, ZONE + 1)[99] ^= 1;
		more = making.end && *making.at;
	}
	t->ssd = malloc(STORE_BLOCKS_MAX * LC_BLOCK);
	if (!t->ssd)
		abort();
	memcpy(t->ssd, ssd->data, STORE_BLOCKS_MAX * LC_BLOCK);
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		t->backing[i] = malloc(STORE_BLOCKS_MAX * LC_BLOCK);
		if (!t->backing[i])
			abort();
		memcpy(t->backing[i], backing[i].data, STORE_BLOCKS_MAX * LC_BLOCK);
	}
}

void image_init(struct fuzz_store *ssd_store, struct fuzz_store backing_stores[IMAGE_VOLUMES])
{
	zeros = calloc(STORE_BLOCKS_MAX, LC_BLOCK);
	ssd = ssd_store;
	backing = backing_stores;
	making.buf = aligned_alloc(LC_BLOCK, 8 * LC_BLOCK);
	if (!zeros || !making.buf)
		abort();
	for (unsigned i = 0; i < IMAGE_NR_TEMPLATES; i++)
		make(&templates[i]);
}

/* --- naming blocks --- */

static u32 place_block(const struct image_template *t, u32 place)
{
	return ZONE + place % t->nr_segments * t->segment_blocks;
}

static u32 header_block(const struct image_template *t, u32 place, u32 number)
{
	u32 first = place_block(t, place), found[64], nr = 0;

	for (u32 i = 0; i < t->segment_blocks; i++)
		if (layout_kind(ssd->data + (size_t)(first + i) * LC_BLOCK) == KIND_RECORD)
			found[nr++] = first + i;
	return nr ? found[number % nr] : first;
}

static u32 named_block(const struct image_template *t, u8 kind, u32 place, u32 position)
{
	switch (kind % IMAGE_NR_KINDS) {
	case KIND_VOLUMES:
		return 2 * (LC_PAGE_VOLUMES + position % LC_NR_VOLUME_PAGES) + place % 2;
	case KIND_LOST:
		return 2 * (LC_PAGE_BAD + position % LC_NR_BAD_PAGES) + place % 2;
	case KIND_HEADER:
		return header_block(t, place, position);
	case KIND_LAST:
		return place_block(t, place) + t->segment_blocks - 1;
	case KIND_BLOCK:
		return place_block(t, place) + position % t->segment_blocks;
	case KIND_ANY:
		return (256 * place + position) % (t->ssd_bytes / LC_BLOCK);
	}
	return place % 2; /* a superblock */
}

/* --- checksums --- */

static void set_data_crc(u8 *block, u32 entry_at, u32 data_block, u32 end_block)
{
	/* Where an entry zeroes a range the crc's place has its length. */
	if (data_block < end_block && !lc_key_zeroes(layout_get(block, (struct field){entry_at, 8})))
		layout_put(block, (struct field){entry_at + 8, 4},
			   lc_crc32c(ssd->data + (size_t)data_block * LC_BLOCK, LC_BLOCK));
}

static void fix_data(const struct image_template *t)
{
	u32 end = t->ssd_bytes / LC_BLOCK;

	for (u32 b = ZONE; b < end; b++) {
		const u8 *block = ssd->data + (size_t)b * LC_BLOCK;
		enum kind kind = layout_kind(block);

		if (kind == KIND_RECORD) {
			u32 nr = layout_get(block, (struct field){76, 4});

			for (u32 i = 0; i < nr && i < LC_ENTRIES_MAX; i++)
				set_data_crc(world_block(ssd, b), 256 + 12 * i, b + 1 + i, end);
		} else if (kind == KIND_SUMMARY &&
			   (b - ZONE) % t->segment_blocks == t->segment_blocks - 1) {
			u32 nr = layout_get(block, (struct field){64, 4}), entry = 0;
			u32 at = b - t->segment_blocks + 1;

			for (u32 i = 0; i < nr && i < LC_SUMMARY_RECORDS_MAX; i++, at++) {
				u32 k = layout_get(block, (struct field){128 + 2 * i, 2});

				while (k-- && entry < LC_SUMMARY_ENTRIES_MAX)
					set_data_crc(world_block(ssd, b), 640 + 12 * entry++, ++at,
						     end);
			}
		}
	}
}

static void fix_samples(void)
{
	for (u32 b = 2; b < 4; b++) {
		u8 *block = world_block(ssd, b);

		for (u32 i = 0; i < LC_VOLUMES_PER_PAGE; i++) {
			struct lc_volume_entry e;

			if (layout_kind(block) != KIND_PAGE || !lc_volume_decode(block, i, &e) ||
			    !e.id)
				continue;
			struct fuzz_store *s = &backing[e.name[0] == 'b'];

			for (u32 k = 0; k < LC_NR_SAMPLES && e.size_bytes <= s->store.size_bytes; k++)
				e.samples[k] = lc_crc32c(s->data + lc_sample_block(e.size_bytes, k) *
									   LC_BLOCK,
							 LC_BLOCK);
			lc_volume_encode(block, i, &e);
		}
	}
}

static void fix(const struct image_template *t, u8 what)
{
	if (what & FIX_DATA)
		fix_data(t);
	if (what & FIX_SAMPLES)
		fix_samples();
	for (u32 b = 0; b < t->ssd_bytes / LC_BLOCK && what & FIX_BLOCKS; b++)
		if (ssd->touched[b])
			layout_reseal(world_block(ssd, b));
}

/* --- steps --- */

/* A record that may well be right: what it does not say is as in the record before it. */
static void forge_record(const struct image_template *t, const struct image_step *s)
{
	u32 first = place_block(t, s->place), position = s->position % t->segment_blocks;
	struct lc_record_info info = {.segment_id = 1, .seq = 1, .epoch = 1, .first = 1};
	struct lc_slot entries[LC_ENTRIES_MAX];
	u32 nr = s->field % 8 + 1;

	/* The nearest header before it on the device. */
	for (u32 b = first + position; b-- > ZONE;)
		if (lc_record_decode(ssd->data + (size_t)b * LC_BLOCK, &info, entries)) {
			info.segment_id += first / t->segment_blocks - b / t->segment_blocks;
			break;
		}
	if (!info.uuid[0])
		memcpy(info.uuid, ssd->data + 16, LC_UUID_BYTES);
	if (position + 1 + nr > t->segment_blocks)
		nr = t->segment_blocks - position > 1 ? t->segment_blocks - position - 1 : 1;
	info.seq += (int8_t)(s->mode) + 1;
	info.epoch += (int8_t)(s->value >> 32);
	info.first += (int8_t)(s->value >> 40);
	info.durable_seq = info.seq - 1 - (s->value >> 48 & 7);
	info.segment_id += (int8_t)(s->value >> 56);
	info.position = position;
	info.nr_entries = nr;
	if (info.durable_seq >= info.seq || info.first > info.seq)
		return;
	for (u32 i = 0; i < nr; i++) {
		u32 b = first + position + 1 + i;

		if (b < t->ssd_bytes / LC_BLOCK)
			memset(world_block(ssd, b), (int)(s->aux + i), LC_BLOCK);
		entries[i].key = lc_key(1 + (s->value >> 8) % 2, (s->value & 0xff) + i,
					s->value >> 16 & 0xff ? s->value >> 16 & 0xff : LC_MASK_FULL,
					LC_ENTRY_DATA);
		entries[i].crc = b < t->ssd_bytes / LC_BLOCK ?
					 lc_crc32c(ssd->data + (size_t)b * LC_BLOCK, LC_BLOCK) :
					 0;
		/* One of several entries zeroes a range, if that is what the step says. */
		if (lc_key_zeroes(s->value >> 24 & LC_KEY_TYPE) && i % 4 == 0) {
			entries[i].key &= ~LC_KEY_TYPE;
			entries[i].key |= s->value >> 24 & LC_KEY_TYPE;
			entries[i].crc = s->aux;
		}
	}
	lc_record_encode(world_block(ssd, first + position), &info, entries);
}

/*
 * An entry of a record becomes one that zeroes a range, from where it is, or from another block, on. In a summary
 * the same happens to an entry of that number.
 */
static void make_zero(u8 *block, const struct image_step *s)
{
	bool summary = layout_kind(block) == KIND_SUMMARY;
	u32 max = layout_get(block, summary ? (struct field){68, 4} : (struct field){76, 4});
	u32 number = max ? s->field % (max < 16 ? max : 16) : 0;
	struct field key = {(summary ? 640 : 256) + 12 * number, 8}, len = {key.at + 8, 4};
	u64 was = layout_get(block, key);

	layout_put(block, key,
		   lc_key(s->mode & 4 ? s->mode >> 3 : lc_key_volume(was),
			  s->mode & 2 ? s->aux : lc_key_block(was), LC_MASK_FULL,
			  s->mode & 1 ? LC_ENTRY_TRIM : LC_ENTRY_ZERO));
	layout_put(block, len, s->value);
}

/* Of all records in the place that follow one another, with or without a chain. */
static void forge_summary(const struct image_template *t, u32 place)
{
	u32 first = place_block(t, place), at = 0;
	struct lc_summary_info sum = {0};
	struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX + LC_ENTRIES_MAX];
	struct lc_record_info info;

	while (at + 1 < t->segment_blocks && sum.nr_records < t->segment_blocks / 2 &&
	       lc_record_decode(ssd->data + (size_t)(first + at) * LC_BLOCK, &info,
				entries + sum.nr_entries) &&
	       sum.nr_entries + info.nr_entries <= LC_SUMMARY_ENTRIES_MAX) {
		if (!sum.nr_records) {
			sum.segment_id = info.segment_id;
			sum.first_seq = info.seq;
		}
		sum.nr_blocks[sum.nr_records++] = info.nr_entries;
		sum.nr_entries += info.nr_entries;
		sum.epoch = info.epoch;
		at += 1 + info.nr_entries;
	}
	if (!sum.nr_records)
		return;
	sum.last_seq = sum.first_seq + sum.nr_records - 1;
	memcpy(sum.uuid, info.uuid, LC_UUID_BYTES);
	lc_summary_encode(world_block(ssd, first + t->segment_blocks - 1), &sum, entries);
}

static void change_field(u8 *block, const struct image_step *s, const u8 *from)
{
	struct field f = layout_field(block, s->field);
	u64 now = layout_get(block, f);

	switch (s->op % IMAGE_NR_OPS) {
	case IMAGE_SET:
		now = s->value;
		break;
	case IMAGE_ADD:
		now += s->value;
		break;
	case IMAGE_XOR:
		now ^= 1ull << s->value % (8 * f.bytes);
		break;
	case IMAGE_COPY_FIELD:
		now = layout_get(from, f);
		break;
	}
	layout_put(block, f, now);
}

/* Change a field of all structures in a place: of its records and of its summary. */
static void change_place(const struct image_template *t, const struct image_step *s, unsigned field)
{
	for (u32 i = 0; i < t->segment_blocks; i++) {
		u32 b = place_block(t, s->place) + i;
		u8 *block = ssd->data + (size_t)b * LC_BLOCK;
		struct field f = layout_field(block, field);

		if (layout_kind(block) == KIND_OTHER)
			continue;
		layout_put(world_block(ssd, b), f, layout_get(block, f) + s->value);
	}
}

static void swap_places(const struct image_template *t, u32 a, u32 b)
{
	static u8 block[LC_BLOCK];

	for (u32 i = 0; i < t->segment_blocks; i++) {
		u8 *x = world_block(ssd, place_block(t, a) + i),
		   *y = world_block(ssd, place_block(t, b) + i);

		memcpy(block, x, LC_BLOCK);
		memmove(x, y, LC_BLOCK);
		memcpy(y, block, LC_BLOCK);
	}
}

static void overlay(u8 *block, u32 at, const u8 *bytes, size_t n)
{
	memcpy(block + at, bytes, n < LC_BLOCK - at ? n : LC_BLOCK - at);
}

/* Take the step; returns how many bytes behind it belong to it. */
static size_t take(const struct image_template *t, const struct image_step *s, const u8 *rest,
		   size_t n)
{
	u8 *block = world_block(ssd, named_block(t, s->kind, s->place, s->position));
	u32 other = named_block(t, s->mode, s->aux >> 8, s->aux & 0xff);
	size_t used = 0;

	switch (s->op % IMAGE_NR_OPS) {
	case IMAGE_SET:
	case IMAGE_ADD:
	case IMAGE_XOR:
	case IMAGE_COPY_FIELD:
		change_field(block, s, ssd->data + (size_t)other * LC_BLOCK);
		if (s->kind % IMAGE_NR_KINDS == KIND_BOTH_SB)
			change_field(world_block(ssd, !(s->place % 2)), s,
				     ssd->data + (size_t)other * LC_BLOCK);
		break;
	case IMAGE_RAW:
		overlay(block, s->aux % LC_BLOCK, (const u8 *)&s->value, 8);
		break;
	case IMAGE_FLIP:
		block[s->aux / 8 % LC_BLOCK] ^= 1 << s->aux % 8;
		break;
	case IMAGE_SWAP:
		swap_places(t, s->place, s->position);
		break;
	case IMAGE_COPY:
		for (u32 i = 0; i < t->segment_blocks; i++)
			memmove(world_block(ssd, place_block(t, s->position) + i),
				ssd->data + (size_t)(place_block(t, s->place) + i) * LC_BLOCK,
				LC_BLOCK);
		break;
	case IMAGE_ERASE:
		for (u32 i = 0; i < t->segment_blocks; i++)
			memset(world_block(ssd, place_block(t, s->place) + i), (int)s->value,
			       LC_BLOCK);
		break;
	case IMAGE_COPY_BLOCK:
		memmove(world_block(ssd, other), block, LC_BLOCK);
		break;
	case IMAGE_LAP:
		change_place(t, s, 0); /* the id is the first field of both */
		break;
	case IMAGE_ALL:
		change_place(t, s, s->field % 5);
		break;
	case IMAGE_RECORD:
		forge_record(t, s);
		break;
	case IMAGE_SUMMARY:
		forge_summary(t, s->place);
		break;
	case IMAGE_FIX:
		fix(t, s->field);
		break;
	case IMAGE_OVERLAY:
		used = sizeof *s * (1 + s->mode % 16);
		if (used > n)
			used = n;
		overlay(block, s->aux % LC_BLOCK, rest, used);
		break;
	case IMAGE_ZERO:
		make_zero(block, s);
		break;
	case IMAGE_LOST:
		if (s->kind % IMAGE_NR_KINDS != KIND_LOST)
			break;
		layout_put(block, (struct field){64, 8}, s->aux % (LC_BAD_PER_PAGE + 1));
		for (u32 i = 0; i < s->aux % (LC_BAD_PER_PAGE + 1); i++)
			layout_put(block, (struct field){72 + 16 * i, 8},
				   lc_key(s->field, (s->value + i) & LC_BLOCK_NR_MAX,
					  s->mode ? s->mode : 1, LC_ENTRY_DATA));
		break;
	}
	return used;
}

static u64 resized(unsigned volume, u8 specs)
{
	u64 bytes = image_backing_bytes(volume);

	if (volume && specs & SPEC_GROWN)
		return bytes + LC_BLOCK + 7;
	return !volume && specs & SPEC_SHRUNK ? bytes - LC_SECTOR : bytes;
}

const struct image_template *image_build(const u8 *data, size_t n, struct image_head *head)
{
	const struct image_template *t;
	struct image_step step;

	memset(head, 0, sizeof *head);
	memcpy(head, data, n < sizeof *head ? n : sizeof *head);
	data += n < sizeof *head ? n : sizeof *head;
	n -= n < sizeof *head ? n : sizeof *head;
	t = &templates[head->template % IMAGE_NR_TEMPLATES];

	world_store_reset(ssd, t->ssd, t->ssd_bytes, LC_SECTOR);
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		world_store_reset(&backing[i], t->backing[i], resized(i, head->specs),
				  head->specs & SPEC_4K ? LC_BLOCK : LC_SECTOR);
		backing[i].store.can_zero = !(head->disk & DISK_SLOW_ZERO);
		backing[i].store.can_punch = !(head->disk & DISK_NO_PUNCH);
		backing[i].zero_error = head->disk & DISK_ZERO_FAILS ? -EIO : 0;
	}
	for (unsigned i = 0; i < IMAGE_STEPS_MAX && n >= sizeof step; i++) {
		size_t used;

		memcpy(&step, data, sizeof step);
		data += sizeof step;
		n -= sizeof step;
		used = take(t, &step, data, n);
		data += used;
		n -= used;
	}
	fix(t, head->fix);
	if (head->unreadable)
		ssd->unreadable[place_block(t, head->unreadable) +
				head->unreadable_at % t->segment_blocks] = true;
	return t;
}
