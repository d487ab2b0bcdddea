/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_image.c - libFuzzer target: a whole cache on a damaged SSD, through several lives.
 *
 * The input describes an image (image.h). Then
 *
 *	open      a refusal is fine, if it has written nothing at all and says why
 *	live      read every volume, write a little, flush, read again, drain, close (or crash)
 *	reopen    after all that the image is the engine's own work again: it opens (unless it foretold what that
 *	          work would be, see is_foretold, or ends in the very last of its numbers, see is_worn_out)
 *	live      without damage now: everything is there; drained, also on the backing stores
 *
 * What must hold, whatever the image says:
 *
 *	- no crash, no deadlock, no endless loop (rt_sim.h counts steps), nothing left over
 *	- no more memory than a device of this size explains (world_limit_memory)
 *	- no I/O beyond the end of a store
 *	- the first write of an opening is the superblock (I1)
 *	- a backing store is written only where some decodable header or summary names the block, or
 *	  the client wrote; and each sector of it is what such an entry's block on the SSD
 *	  holds (its crc being right), or what was there already; or zeros, where an entry zeroes that block or the
 *	  client did, and only there it is told to zero
 *	- what the client wrote or zeroed and flushed, and what was read of dirty blocks and pending ranges, is there
 *	  ever after
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "image.h"

#define STEPS_MAX 1000000u
#define MODEL_BLOCKS 64u /* of a volume */
#define CHUNK_BLOCKS 8u
#define ZEROS_MAX (20 * LC_BLOCK)
#define NAMED_MAX (STORE_BLOCKS_MAX * LC_ENTRIES_MAX)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t n);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t n, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(u8 *data, size_t n, size_t max);

static struct fuzz_store ssd, backing[IMAGE_VOLUMES];

/* What some structure of the image says to be a block of a volume. */
struct named {
	u32 slot, crc;
	u8 mask;
	u32 next; /* + 1; 0: none */
};

/* What is known of a volume, by backing store. */
struct model {
	u8 *data; /* MODEL_BLOCKS blocks */
	bool known[MODEL_BLOCKS * LC_SECTORS_PER_BLOCK];
	bool written[MODEL_BLOCKS]; /* by the client, maybe in vain */
	bool zeroed[MODEL_BLOCKS];  /* by an entry of some structure */
	u32 named[MODEL_BLOCKS];    /* list of struct named: index + 1 */
};

static struct named *named;
static u32 nr_named;
static struct model models[IMAGE_VOLUMES];

static struct {
	const struct image_template *template;
	struct image_head head;
	unsigned life;
	int open_error, close_error;
	bool closed, worn_out, foretold;
	u8 *buf; /* CHUNK_BLOCKS blocks */
	u8 zeros[ZEROS_MAX];
	u64 rng;
	unsigned order[IMAGE_VOLUMES]; /* volume of the cache -> backing store */
	unsigned nr_volumes;
	struct lc_cache *cache;
} run;

/* --- the judge of writes to backing stores --- */

static bool sector_named(const struct model *m, u64 block, u32 sector, const u8 *data, u32 len)
{
	for (u32 i = m->named[block]; i; i = named[i - 1].next) {
		const struct named *e = &named[i - 1];
		const u8 *content = world_original(&ssd, e->slot);

		if (e->mask >> sector & 1 && !memcmp(content + sector * LC_SECTOR, data, len) &&
		    lc_crc32c(content, LC_BLOCK) == e->crc)
			return true;
	}
	return false;
}

static bool all_zeros(const u8 *p, u32 len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static void judge_zero(const struct fuzz_store *s, u32 len_bytes, u64 offset_bytes)
{
	const struct model *m = &models[s->volume];

	for (u64 b = offset_bytes / LC_BLOCK; b * LC_BLOCK < offset_bytes + len_bytes; b++)
		fuzz_check(b < MODEL_BLOCKS && (m->written[b] || m->zeroed[b]),
			   "life %u: backing store %u, block %llu is zeroed, which nobody asked for",
			   run.life, s->volume, (unsigned long long)b);
}

static void judge_backing(struct fuzz_store *s, const u8 *buf, u32 len_bytes, u64 offset_bytes)
{
	struct model *m = &models[s->volume];

	if (!buf) {
		judge_zero(s, len_bytes, offset_bytes);
		return;
	}

	for (u32 at = 0; at < len_bytes; at += LC_SECTOR) {
		u64 to = offset_bytes + at, block = to / LC_BLOCK;
		u32 sector = to % LC_BLOCK / LC_SECTOR, len = LC_SECTOR;

		if (to >= s->store.size_bytes)
			break; /* dropped */
		if (s->store.size_bytes - to < len)
			len = s->store.size_bytes - to;
		fuzz_check(block < MODEL_BLOCKS &&
				   (m->written[block] || m->named[block] || m->zeroed[block]),
			   "life %u: backing store %u, block %llu is written, which nothing names",
			   run.life, s->volume, (unsigned long long)block);
		fuzz_check(m->written[block] || !memcmp(s->data + to, buf + at, len) ||
				   (m->zeroed[block] && all_zeros(buf + at, len)) ||
				   sector_named(m, block, sector, buf + at, len),
			   "life %u: backing store %u, block %llu, sector %u is written with what no "
			   "entry of it holds",
			   run.life, s->volume, (unsigned long long)block, sector);
	}
}

static void judge_forbid(struct fuzz_store *s, const u8 *buf, u32 len_bytes, u64 offset_bytes)
{
	(void)buf;
	sim_fail("life %u: opening writes %u bytes at %llu to backing store %u", run.life,
		 len_bytes, (unsigned long long)offset_bytes, s->volume);
}

static void name_zeros(u64 key, u32 nr)
{
	for (unsigned i = 0; i < run.nr_volumes; i++)
		for (u64 b = lc_key_block(key);
		     lc_cache_volume(run.cache, i)->id == lc_key_volume(key) &&
		     b < lc_key_block(key) + nr && b < MODEL_BLOCKS;
		     b++)
			models[run.order[i]].zeroed[b] = true;
}

static void name(u64 key, u32 crc, u32 slot)
{
	if (slot >= STORE_BLOCKS_MAX || nr_named == NAMED_MAX)
		return;
	if (lc_key_zeroes(key)) {
		name_zeros(key, crc);
		return;
	}
	for (unsigned i = 0; i < run.nr_volumes; i++) {
		struct model *m = &models[run.order[i]];

		if (lc_cache_volume(run.cache, i)->id != lc_key_volume(key) ||
		    lc_key_block(key) >= MODEL_BLOCKS)
			continue;
		named[nr_named] = (struct named){slot, crc, lc_key_mask(key),
						 m->named[lc_key_block(key)]};
		m->named[lc_key_block(key)] = ++nr_named;
	}
}

/*
 * Is this of the very epoch that the opening has just begun, before anything is written in it? Not a first header, then, but
 * something in a place that the log has not reached, which no opening sees; with the right epoch, first seq and place nothing
 * tells it from the engine's work later.
 */
static bool is_foretold(const u8 *block)
{
	static struct lc_slot entries[LC_ENTRIES_MAX];
	static struct lc_summary_info sum;
	const struct lc_superblock *sb = &run.cache->core.meta.sb;
	struct lc_record_info info;

	if (lc_record_decode(block, &info, entries))
		return info.epoch == sb->epoch && info.first == sb->first;
	return lc_summary_decode(block, &sum, entries) && sum.epoch == sb->epoch;
}

/* What do all structures of the image name, be they valid in their place or not? */
static void name_all(void)
{
	static struct lc_slot entries[LC_ENTRIES_MAX];
	static struct lc_summary_info sum;
	u32 segment_blocks = lc_cache_volume(run.cache, 0)->core->ring.segment_blocks;
	struct lc_record_info info;

	nr_named = 0;
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		memset(models[i].named, 0, sizeof models[i].named);
		memset(models[i].zeroed, 0, sizeof models[i].zeroed);
	}
	for (u32 b = 0; b < run.template->ssd_bytes / LC_BLOCK; b++) {
		const u8 *block = world_original(&ssd, b);

		if (is_foretold(block))
			run.foretold = true;
		if (lc_record_decode(block, &info, entries)) {
			for (u32 i = 0; i < info.nr_entries; i++)
				name(entries[i].key, entries[i].crc, b + 1 + i);
		} else if (lc_summary_decode(block, &sum, entries)) {
			u32 slot = b + 1 - segment_blocks, entry = 0;

			for (u32 i = 0; i < sum.nr_records; i++, slot++)
				for (u32 k = 0; k < sum.nr_blocks[i]; k++, entry++)
					name(entries[entry].key, entries[entry].crc, ++slot);
		}
	}
}

/* --- clients --- */

/* Then a dirty block that cannot be read stays dirty, and the tail below it. */
static bool lost_is_full(void)
{
	return lc_cache_volume(run.cache, 0)->core->meta.bad.nr == LC_BAD_MAX;
}

static void forget(struct model *m, u64 offset_bytes, u32 len_bytes)
{
	for (u64 s = offset_bytes / LC_SECTOR; s <= (offset_bytes + len_bytes - 1) / LC_SECTOR; s++)
		m->known[s] = false;
	for (u64 b = offset_bytes / LC_BLOCK; b <= (offset_bytes + len_bytes - 1) / LC_BLOCK; b++)
		m->written[b] = true;
}

/* Sectors that lie in the range completely. */
static void learn(struct model *m, const u8 *buf, u64 offset_bytes, u32 len_bytes)
{
	memcpy(m->data + offset_bytes, buf, len_bytes);
	for (u64 s = (offset_bytes + LC_SECTOR - 1) / LC_SECTOR;
	     (s + 1) * LC_SECTOR <= offset_bytes + len_bytes; s++)
		m->known[s] = true;
}

static void compare(const struct model *m, const u8 *buf, u64 offset_bytes, u32 len_bytes,
		    const char *what)
{
	for (u32 at = 0; at + LC_SECTOR <= len_bytes; at += LC_SECTOR) {
		u64 s = (offset_bytes + at) / LC_SECTOR;

		fuzz_check(!m->known[s] || !memcmp(m->data + s * LC_SECTOR, buf + at, LC_SECTOR),
			   "life %u: volume %u, block %llu, sector %llu: %s", run.life,
			   (unsigned)(m - models), (unsigned long long)s / 8,
			   (unsigned long long)s % 8, what);
	}
}

/* Nothing but EIO is an excuse, and not for a sector that is known to be there. */
static void read_sectors(unsigned i, u64 offset_bytes, u32 len_bytes)
{
	const struct model *m = &models[run.order[i]];

	for (u32 at = 0; at < len_bytes; at += LC_SECTOR) {
		u32 len = len_bytes - at < LC_SECTOR ? len_bytes - at : LC_SECTOR;
		u64 sector = (offset_bytes + at) / LC_SECTOR;
		int ret = lc_read(lc_cache_volume(run.cache, i), run.buf, len, offset_bytes + at);

		fuzz_check(!ret || ret == -EIO, "life %u: a read answers %d", run.life, ret);
		fuzz_check(!ret || !m->known[sector],
			   "life %u: volume %u, block %llu, sector %llu cannot be read any more",
			   run.life, run.order[i], (unsigned long long)sector / 8,
			   (unsigned long long)sector % 8);
		if (!ret)
			compare(m, run.buf, offset_bytes + at, len, "another content than before");
	}
}

/* Is the block dirty in the index, or in a pending range? */
static bool is_dirty(unsigned i, u64 block)
{
	struct lc_volume *v = lc_cache_volume(run.cache, i);
	const struct lc_index *ix = &v->core->ring.index;
	bool dirty;
	u32 slot;

	lc_mutex_lock(&v->core->lock);
	slot = lc_index_find(ix, v->id, block);
	dirty = (slot && lc_index_slot(ix, slot)->key & LC_SLOT_DIRTY) ||
		lc_zeros_cover(&v->core->ring.zeros, lc_place(v->id, block));
	lc_mutex_unlock(&v->core->lock);
	return dirty;
}

/*
 * Dirty blocks that can be read now have to stay. Clean ones may be dropped, and are what the
 * image says.
 */
static void remember_dirty(unsigned i)
{
	u64 size = lc_volume_size_bytes(lc_cache_volume(run.cache, i));

	for (u64 at = 0; at < size; at += LC_BLOCK) {
		u32 len = size - at < LC_BLOCK ? size - at : LC_BLOCK;

		if (is_dirty(i, at / LC_BLOCK) &&
		    !lc_read(lc_cache_volume(run.cache, i), run.buf, len, at))
			learn(&models[run.order[i]], run.buf, at, len);
	}
}

static void read_all(void)
{
	for (unsigned i = 0; i < run.nr_volumes; i++) {
		u64 size = lc_volume_size_bytes(lc_cache_volume(run.cache, i));

		for (u64 at = 0; at < size; at += CHUNK_BLOCKS * LC_BLOCK) {
			u32 len = size - at < CHUNK_BLOCKS * LC_BLOCK ? size - at :
									CHUNK_BLOCKS * LC_BLOCK;
			int ret = lc_read(lc_cache_volume(run.cache, i), run.buf, len, at);

			if (!ret) {
				compare(&models[run.order[i]], run.buf, at, len,
					"another content than before");
				continue;
			}
			read_sectors(i, at, len); /* one lost sector fails the whole request */
		}
	}
}

static void write_some(void)
{
	static const u32 lens[] = {LC_BLOCK, LC_SECTOR,	   3 * LC_BLOCK, 700,
				   5,	     8 * LC_BLOCK, 2 * LC_SECTOR};
	unsigned nr = run.head.life & LIFE_MANY_WRITES ? 40 : 7;

	for (unsigned k = 0; k < nr; k++) {
		u64 r = layout_random(&run.rng);
		unsigned i = r % 4 ? 0 : run.nr_volumes - 1;
		u32 len = lens[(r >> 8) % (sizeof lens / sizeof *lens)];
		u64 size = lc_volume_size_bytes(lc_cache_volume(run.cache, i));
		u64 offset = (r >> 16) % (size - len);
		struct model *m = &models[run.order[i]];
		int ret;

		if (len % LC_BLOCK == 0)
			offset -= offset % LC_BLOCK;
		else if (len % LC_SECTOR == 0)
			offset -= offset % LC_SECTOR;
		memset(run.buf, (int)(r >> 56), len);
		memcpy(run.buf, &r, len < sizeof r ? len : sizeof r);
		forget(m, offset, len);
		ret = lc_write(lc_cache_volume(run.cache, i), run.buf, len, offset,
			       k % 3 ? 0 : LC_FUA);
		fuzz_check(!ret || ret == -EIO || (ret == -ENOSPC && lost_is_full()),
			   "life %u: a write answers %d", run.life, ret);
		/*
		 * A part of a block whose other parts are lost, or a tail that is stuck. Nothing
		 * else can fail.
		 */
		fuzz_check(!ret || len % LC_BLOCK || lost_is_full(),
			   "life %u: a write of whole blocks answers %d", run.life, ret);
		if (!ret)
			learn(m, run.buf, offset, len);
	}
}

/* Zero or trim something. */
static void zero_some(void)
{
	static const u32 lens[] = {20 * LC_BLOCK, 16 * LC_BLOCK, LC_BLOCK, 700, 18 * LC_BLOCK + 9};
	static const unsigned flags[] = {0, LC_FUA, LC_MAY_TRIM, LC_FAST_ONLY};

	for (unsigned k = 0; k < 8; k++) {
		u64 r = layout_random(&run.rng);
		unsigned i = r % 4 ? 0 : run.nr_volumes - 1;
		struct lc_volume *v = lc_cache_volume(run.cache, i);
		u32 len = lens[(r >> 8) % (sizeof lens / sizeof *lens)];
		u64 offset = (r >> 16) % (lc_volume_size_bytes(v) - len);
		u64 end = (offset + len) / LC_BLOCK * LC_BLOCK;
		bool trim = r >> 60 < 5;
		int ret;

		if (r >> 40 & 1)
			offset -= offset % LC_BLOCK;
		if (trim) { /* whole blocks alone; nothing, if no space would come back */
			offset = (offset + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
			len = end > offset && lc_volume_can_trim(v) ? end - offset : 0;
		}
		if (!len)
			continue;
		forget(&models[run.order[i]], offset, len);
		ret = trim ? lc_trim(v, len, offset, r >> 50 & LC_FUA) :
			     lc_zero(v, len, offset, flags[r >> 52 & 3]);
		if (ret == -EOPNOTSUPP && !trim && flags[r >> 52 & 3] == LC_FAST_ONLY)
			continue;
		fuzz_check(!ret || ret == -EIO || (ret == -ENOSPC && lost_is_full()),
			   "life %u: %s answers %d", run.life, trim ? "a trim" : "zeros", ret);
		fuzz_check(!ret || len % LC_BLOCK || offset % LC_BLOCK || lost_is_full(),
			   "life %u: %s of whole blocks answers %d", run.life,
			   trim ? "a trim" : "zeros", ret);
		if (!ret)
			learn(&models[run.order[i]], run.zeros, offset, len);
	}
}

/* After a drain the backing stores hold all that is known. */
static void compare_backing(void)
{
	for (unsigned i = 0; i < run.nr_volumes; i++) {
		const struct fuzz_store *s = &backing[run.order[i]];

		compare(&models[run.order[i]], s->data, 0,
			s->store.size_bytes / LC_SECTOR * LC_SECTOR,
			"was not written back by a drain");
	}
}

/* --- lives --- */

static u32 give_volumes(struct lc_volume_spec specs[IMAGE_VOLUMES])
{
	bool swapped = run.head.specs & SPEC_SWAPPED && !(run.head.specs & SPEC_WITHOUT_B);

	run.nr_volumes = run.head.specs & SPEC_WITHOUT_B ? 1 : 2;
	for (unsigned i = 0; i < run.nr_volumes; i++) {
		run.order[i] = i ^ swapped;
		specs[i].backing = &backing[run.order[i]].store;
		specs[i].name = !run.order[i] ? "" : run.head.specs & SPEC_NEW ? "new" : "b";
	}
	return run.nr_volumes;
}

static void live(u8 how)
{
	struct lc_error err = {0};
	int ret;

	if (how & LIFE_NEVER_START)
		return;
	ret = lc_cache_start(run.cache, &err);
	fuzz_check(!ret, "life %u: start: %d, %s", run.life, ret, err.text);
	for (unsigned i = 0; i < run.nr_volumes; i++)
		remember_dirty(i);
	read_all();
	if (how & LIFE_IDLE)
		sim_sleep(3 * LC_NS_PER_S);
	if (!(how & LIFE_NO_WRITES))
		write_some();
	if (!(how & LIFE_NO_WRITES) && run.head.disk & DISK_ZEROES)
		zero_some();
	ret = lc_flush(lc_cache_volume(run.cache, 0));
	fuzz_check(!ret, "life %u: flush: %d", run.life, ret);
	read_all();
	if (!(how & LIFE_NO_DRAIN)) {
		ret = lc_cache_drain(run.cache);
		fuzz_check(!ret || (ret == -ENOSPC && lost_is_full()), "life %u: drain: %d",
			   run.life, ret);
		if (!ret)
			compare_backing();
		read_all();
	}
}

/*
 * An image may say that the cache is used up: the next opening then refuses to let it count on, which is right (check_counters
 * in recover.c). Use alone comes there after 15 000 years.
 */
static bool is_worn_out(void)
{
	const struct lc_core *c = &run.cache->core;

	return c->meta.sb.epoch >= LC_COUNT_OPEN_MAX || c->ring.head_id >= LC_COUNT_OPEN_MAX ||
	       run.cache->log.next_seq > LC_COUNT_OPEN_MAX;
}

static void life(void *arg)
{
	struct lc_volume_spec specs[IMAGE_VOLUMES];
	struct lc_settings settings;
	struct lc_error err = {0};
	u8 how = run.head.life;
	u32 nr;

	(void)arg;
	if (run.life > 1)
		how &= LIFE_NO_WRITEBACK | LIFE_FEW_BUFFERS;
	lc_settings_init(&settings);
	settings.nr_buffers = how & LIFE_FEW_BUFFERS ? 2 : 4;
	settings.writeback = !(how & LIFE_NO_WRITEBACK);
	settings.idle_ms = how & LIFE_IDLE ? 500 : 0;
	nr = give_volumes(specs);
	world_store_mark(&ssd);
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		backing[i].judge = judge_forbid;
		backing[i].volume = i;
	}
	run.closed = false;
	run.open_error = lc_cache_open(&ssd.store, specs, nr, &settings, &run.cache, &err);
	if (run.open_error) {
		fuzz_check(run.open_error < 0 && err.text[0], "life %u: open: %d without a word",
			   run.life, run.open_error);
		fuzz_check(!ssd.nr_writes, "life %u: open has written, and refuses: %s", run.life,
			   err.text);
		if (getenv("FUZZ_VERBOSE"))
			fprintf(stderr, "life %u: %d: %s\n", run.life, run.open_error, err.text);
		return;
	}
	fuzz_check(ssd.nr_writes >= 2 && ssd.first_write_bytes < 2 * LC_BLOCK,
		   "life %u: the superblock is not the first thing that is written", run.life);
	name_all();
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++)
		backing[i].judge = judge_backing;
	live(how);
	run.worn_out = is_worn_out();
	if (how & LIFE_ABANDON)
		return;
	run.close_error = lc_cache_close(run.cache);
	run.closed = true;
	fuzz_check(!run.close_error, "life %u: close: %d", run.life, run.close_error);
}

/*
 * What an honest engine takes for this device: index and tables, buffers, a few fixed structures.
 */
static u64 memory_limit(void)
{
	u64 blocks = run.template->ssd_bytes / LC_BLOCK;

	/* Segments of a fuzzed superblock are at most a quarter of the device behind the zone. */
	return (4u << 20) + blocks * 64 + (blocks - 256) * LC_BLOCK * 4;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	world_begin();
	world_store_create(&ssd, "ssd");
	world_store_create(&backing[0], "backing");
	world_store_create(&backing[1], "backing-b");
	image_init(&ssd, backing);
	named = malloc(NAMED_MAX * sizeof *named);
	run.buf = aligned_alloc(LC_BLOCK, CHUNK_BLOCKS * LC_BLOCK);
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++)
		models[i].data = malloc((size_t)MODEL_BLOCKS * LC_BLOCK);
	if (!named || !run.buf || !models[0].data || !models[1].data)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t n)
{
	run.template = image_build(data, n, &run.head);
	run.rng = run.head.seed;
	for (unsigned i = 0; i < IMAGE_VOLUMES; i++) {
		memset(models[i].known, 0, sizeof models[i].known);
		memset(models[i].written, 0, sizeof models[i].written);
	}
	sim_seed(run.head.seed);
	sim_history_begin(STEPS_MAX);
	world_limit_memory(memory_limit());
	run.worn_out = run.foretold = false;
	for (run.life = 1; run.life <= 2 && !run.foretold; run.life++) {
		sim_life("client", life, NULL);
		world_life_end(!run.open_error && !run.closed);
		if (run.open_error) {
			/* What was unreadable and not overwritten still is. */
			fuzz_check(run.life == 1 || (run.open_error == -EIO && run.head.unreadable) ||
					   (run.open_error == -EUCLEAN && run.worn_out),
				   "life %u: open refuses what the engine has made itself: %d",
				   run.life, run.open_error);
			return 0;
		}
	}
	return 0;
}

/* --- mutations that know what an image is --- */

static void mutate_step(struct image_step *s, u64 *r)
{
	u64 x = layout_random(r);

	switch (x % 8) {
	case 0:
		s->op = x >> 8;
		s->op %= IMAGE_NR_OPS;
		break;
	case 1:
		s->kind = (x >> 8) % IMAGE_NR_KINDS;
		break;
	case 2:
		s->place = (x >> 8) % 16;
		break;
	case 3:
		s->position = (x >> 8) % 16;
		break;
	case 4:
		s->field = (x >> 8) % 32;
		break;
	case 5:
		s->mode = x >> 8;
		break;
	case 6:
		s->aux = x >> 8;
		break;
	case 7:
		s->value = layout_value(layout_random(r), s->value);
		break;
	}
}

static void new_step(struct image_step *s, u64 *r)
{
	u64 x = layout_random(r);

	*s = (struct image_step){
		.op = x % IMAGE_NR_OPS,
		.kind = (x >> 8) % IMAGE_NR_KINDS,
		.place = (x >> 16) % 16,
		.position = (x >> 24) % (x >> 63 ? 16 : 3),
		.field = (x >> 32) % 24,
		.mode = (x >> 40) % IMAGE_NR_KINDS,
		.aux = x >> 48,
		.value = layout_value(layout_random(r), x >> 32),
	};
}

/*
 * A third of the time what libFuzzer does by itself; else a step is added, taken out, changed, or
 * the head is.
 */
size_t LLVMFuzzerCustomMutator(u8 *data, size_t n, size_t max, unsigned seed)
{
	const size_t head = sizeof(struct image_head), one = sizeof(struct image_step);
	u64 r = seed, x = layout_random(&r);
	struct image_step s;
	size_t nr, at;

	if (n < head || x % 3 == 0)
		return LLVMFuzzerMutate(data, n, max);
	nr = (n - head) / one;
	at = head + (nr ? (x >> 8) % nr : 0) * one;
	switch ((x >> 32) % 8) {
	case 0: /* the head */
		data[(x >> 40) % head] ^= 1 << (x >> 48) % 8;
		break;
	case 1:
		if (!nr)
			break;
		memmove(data + at, data + at + one, n - at - one);
		n -= one;
		break;
	case 2:
	case 3:
	case 4:
		if (n + one > max)
			break;
		new_step(&s, &r);
		memmove(data + at + one, data + at, n - at);
		memcpy(data + at, &s, one);
		n += one;
		break;
	default:
		if (!nr)
			break;
		memcpy(&s, data + at, one);
		mutate_step(&s, &r);
		memcpy(data + at, &s, one);
	}
	return n;
}
