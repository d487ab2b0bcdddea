/* SPDX-License-Identifier: BSD-3-Clause */
#include "recover.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_DEPTH 64u
#define PROGRESS_NS (2 * LC_NS_PER_S)

/* What the scan found in one place of the ring. */
struct place {
	u64 id; /* 0: no valid first header */
	u64 seq;
	u64 epoch;
	u64 durable_seq;       /* what the header says of others */
	u64 summary_first_seq; /* 0: no valid summary */
	u64 summary_last_seq;
	u64 summary_epoch;
	u64 summary_id;
	u16 nr_first;	 /* data blocks of the first record */
	bool unreadable; /* the first header */
};

struct birth {
	u64 epoch, first; /* the epoch began at this seq */
};

struct recovery {
	struct lc_core *core;
	struct lc_recovery *out;
	struct lc_error *err;
	struct place *places;
	struct birth *births; /* sorted by epoch; `first` is the least of all from there on */
	u32 nr_births;
	u64 known_durable; /* every record up to here was durable: the superblock or a record says so */
	u8 *segment;	   /* one segment of scratch */
	struct lc_slot entries[LC_ENTRIES_MAX];
};

/* One read of the scan: the last block of the place before, and the first of this one. */
struct scan_io {
	struct lc_io io;
	u32 place;
	struct scan_io *next;
};

static u32 place_of(const struct recovery *r, u64 id)
{
	return (id - 1) % r->core->ring.nr;
}

static bool our_uuid(const struct recovery *r, const u8 uuid[LC_UUID_BYTES])
{
	return !memcmp(uuid, r->core->meta.uuid, LC_UUID_BYTES);
}

/* The slot table of a place of the ring. */
static struct lc_slot *slots_of(const struct recovery *r, u32 place)
{
	const struct lc_ring *ring = &r->core->ring;

	return &ring->index.slots[(size_t)place * ring->segment_blocks];
}

/* --- scan --- */

/*
 * A summary replaces what the slot table says of a place if it goes with the place's first header. The two
 * come in any order, so each looks for the other.
 */
static bool summary_fits(const struct place *p)
{
	return p->id && p->summary_id == p->id &&
	       (LC_MUTANT(any_summary) ||
		(p->summary_first_seq == p->seq && p->summary_epoch >= p->epoch));
}

static void scan_header(struct recovery *r, u32 place, const u8 *block)
{
	struct place *p = &r->places[place];
	struct lc_record_info info;

	if (!lc_record_decode(block, &info, r->entries) || !our_uuid(r, info.uuid) ||
	    info.position != 0 || place_of(r, info.segment_id) != place ||
	    info.nr_entries >= r->core->ring.segment_blocks)
		return;
	p->id = info.segment_id;
	p->seq = info.seq;
	p->epoch = info.epoch;
	p->durable_seq = info.durable_seq;
	p->nr_first = info.nr_entries;
	r->births[r->nr_births++] = (struct birth){info.epoch, info.first};
	if (p->summary_id && summary_fits(p))
		return; /* it has put these entries there, and more */
	p->summary_id = 0;
	memset(slots_of(r, place), 0, r->core->ring.segment_blocks * sizeof(struct lc_slot));
	memcpy(slots_of(r, place) + 1, r->entries, info.nr_entries * sizeof(struct lc_slot));
}

/* Does each entry lie inside its volume? Otherwise the headers have the say. */
static bool plausible(const struct recovery *r, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		u64 key = r->entries[i].key;
		const struct lc_volume_entry *v = &r->core->meta.volumes[lc_key_volume(key)];
		u64 end = lc_key_block(key) + (lc_key_zeroes(key) ? r->entries[i].crc : 1);

		if (v->id && end > (v->size_bytes + LC_BLOCK - 1) / LC_BLOCK)
			return false;
	}
	return true;
}

static void scan_summary(struct recovery *r, u32 place, const u8 *block)
{
	struct place *p = &r->places[place];
	struct lc_slot *slots = slots_of(r, place);
	struct lc_summary_info info;
	u32 position = 0, at = 0;

	if (!lc_summary_decode(block, &info, r->entries) || !our_uuid(r, info.uuid) ||
	    place_of(r, info.segment_id) != place ||
	    info.nr_entries + info.nr_records >= r->core->ring.segment_blocks ||
	    !plausible(r, info.nr_entries))
		return;
	p->summary_id = info.segment_id;
	p->summary_first_seq = info.first_seq;
	p->summary_last_seq = info.last_seq;
	p->summary_epoch = info.epoch;
	if (p->id && !summary_fits(p)) {
		p->summary_id = 0;
		return;
	}
	memset(slots, 0, r->core->ring.segment_blocks * sizeof *slots);
	for (u32 i = 0; i < info.nr_records; i++) {
		memcpy(&slots[position + 1], &r->entries[at], info.nr_blocks[i] * sizeof *slots);
		position += 1 + info.nr_blocks[i];
		at += info.nr_blocks[i];
	}
}

static void scan_done(struct recovery *r, const struct scan_io *s)
{
	struct lc_core *c = r->core;
	u8 *header = (u8 *)s->io.buf + LC_BLOCK;
	int failed = s->io.result;

	if (s->place > 0 && !failed)
		scan_summary(r, s->place - 1, s->io.buf);
	if (s->place == c->ring.nr)
		return;
	if (failed) /* perhaps it is only the other block: without its summary a segment is walked */
		failed = lc_store_read(c->ssd, header, LC_BLOCK, s->io.offset_bytes + LC_BLOCK);
	if (failed)
		r->places[s->place].unreadable = true;
	else
		scan_header(r, s->place, header);
}

/*
 * Read the border before place i for i = 0 .. nr: the last block of one place and the first of the next in one
 * I/O. (Before place 0 lies the metadata zone; behind the last place only its summary is read.)
 */
static int scan(struct recovery *r)
{
	struct lc_core *c = r->core;
	const struct lc_ring *ring = &c->ring;
	u64 progress_ns = lc_now_ns() + PROGRESS_NS;
	struct scan_io *ios = lc_alloc(SCAN_DEPTH * sizeof *ios), *unused = NULL;
	u8 *memory = lc_alloc(SCAN_DEPTH * 2 * LC_BLOCK);
	struct lc_area area = {memory, SCAN_DEPTH * 2 * LC_BLOCK};
	struct lc_queue *q = NULL;
	u32 place = 0, in_flight = 0;
	int ret = -ENOMEM;

	if (!ios || !memory) {
		lc_fail(r->err, ret, "%s: no memory for recovery", c->ssd->name);
		goto out;
	}
	ret = lc_queue_open(c->ssd, SCAN_DEPTH, &area, 1, &q, r->err);
	if (ret)
		goto out;
	for (u32 i = 0; i < SCAN_DEPTH; i++) {
		ios[i].io.buf = memory + (size_t)i * 2 * LC_BLOCK;
		ios[i].next = unused;
		unused = &ios[i];
	}
	while (place <= ring->nr || in_flight) {
		struct lc_io *done;

		while (place <= ring->nr && unused) {
			struct scan_io *s = unused;
			u32 border = ring->zone_blocks + place * ring->segment_blocks;

			unused = s->next;
			s->place = place++;
			s->io = (struct lc_io){
				.op = LC_IO_READ,
				.buf = s->io.buf,
				.len_bytes = s->place < ring->nr ? 2 * LC_BLOCK : LC_BLOCK,
				.offset_bytes = lc_slot_offset_bytes(border - 1),
				.owner = s,
			};
			lc_queue_submit(q, &s->io);
			in_flight++;
		}
		for (done = lc_queue_wait(q, LC_FOREVER); done;) {
			struct scan_io *s = done->owner;

			done = done->next;
			scan_done(r, s);
			s->next = unused;
			unused = s;
			in_flight--;
		}
		if (lc_now_ns() >= progress_ns) {
			lc_log(LC_LOG_INFO, "%s: recovery: %u of %u segments scanned", c->ssd->name,
			       place - in_flight, ring->nr);
			progress_ns = lc_now_ns() + PROGRESS_NS;
		}
	}
	lc_queue_close(q);
out:
	lc_free(ios, SCAN_DEPTH * sizeof *ios);
	lc_free(memory, SCAN_DEPTH * 2 * LC_BLOCK);
	return ret;
}

/* --- void records (I1) --- */

static int compare_births(const void *a, const void *b)
{
	const struct birth *x = a, *y = b;

	return (x->epoch > y->epoch) - (x->epoch < y->epoch);
}

static bool is_void(const struct recovery *r, u64 epoch, u64 seq);

/* When did each epoch begin, and up to where do valid records say that all was durable? */
static void sort_births(struct recovery *r)
{
	const struct lc_superblock *sb = &r->core->meta.sb;

	r->births[r->nr_births++] = (struct birth){sb->epoch, sb->first};
	qsort(r->births, r->nr_births, sizeof *r->births, compare_births);
	r->out->max_epoch = r->births[r->nr_births - 1].epoch;
	for (u32 i = r->nr_births - 1; i-- > 0;)
		if (r->births[i + 1].first < r->births[i].first)
			r->births[i].first = r->births[i + 1].first;
	for (u32 i = 0; i < r->core->ring.nr; i++) {
		const struct place *p = &r->places[i];

		if (p->id && !is_void(r, p->epoch, p->seq) && p->durable_seq > r->known_durable)
			r->known_durable = p->durable_seq;
	}
}

/* Did a later epoch begin at or before SEQ? Then a recovery has cut this record off. */
static bool is_void(const struct recovery *r, u64 epoch, u64 seq)
{
	u32 low = 0, high = r->nr_births;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (r->births[mid].epoch > epoch)
			high = mid;
		else
			low = mid + 1;
	}
	return low < r->nr_births && r->births[low].first <= seq && !LC_MUTANT(no_void);
}

/* --- chains of headers --- */

/* What the walk up the log expects next. */
struct cursor {
	u64 seq;
	u64 epoch;
};

static int unreadable(struct recovery *r, u64 id, u32 slot, int error)
{
	return lc_fail(r->err, error,
		       "%s: segment %llu (block %u) cannot be read: %s; nothing was changed; a read "
		       "error is not taken for the end of the log, because what lies behind it may be "
		       "your newest data",
		       r->core->ssd->name, (unsigned long long)id, slot, strerror(-error));
}

static int read_blocks(struct recovery *r, u64 id, u32 position, u32 nr, void *buf)
{
	struct lc_core *c = r->core;
	u32 slot = lc_ring_first_slot(&c->ring, id) + position;
	int ret = lc_store_read(c->ssd, buf, nr * LC_BLOCK, lc_slot_offset_bytes(slot));

	return ret ? unreadable(r, id, slot, ret) : 0;
}

/* I1: is the header in BLOCK the record that comes next at this place? */
static bool belongs(const struct recovery *r, const struct lc_record_info *info, u64 id,
		    u32 position, const struct cursor *at)
{
	return our_uuid(r, info->uuid) && info->segment_id == id && info->position == position &&
	       (info->seq == at->seq || LC_MUTANT(no_seq_check)) &&
	       (info->epoch >= at->epoch || LC_MUTANT(no_epoch_check)) &&
	       !is_void(r, info->epoch, info->seq) &&
	       position + 1 + info->nr_entries <= r->core->ring.segment_blocks;
}

/* Nobody said that this record was durable: is all of it there? 1, 0 or -errno. */
static int intact(struct recovery *r, u64 id, u32 position, const struct lc_slot *entries, u32 nr)
{
	int ret = read_blocks(r, id, position + 1, nr, r->segment);

	for (u32 i = 0; i < nr && !ret; i++)
		if (lc_key_type(entries[i].key) == LC_ENTRY_DATA &&
		    lc_crc32c(r->segment + (size_t)i * LC_BLOCK, LC_BLOCK) != entries[i].crc)
			return 0;
	return ret ? ret : 1;
}

/*
 * Follow the chain in segment ID as far as it goes (or up to STOP_SEQ, if that is not 0), filling in the slot
 * table. The cursor ends at the seq after it. VERIFY: records beyond known_durable must be intact.
 */
static int walk(struct recovery *r, u64 id, struct cursor *at, u64 stop_seq, bool verify)
{
	u32 blocks = r->core->ring.segment_blocks, position = 0;
	struct lc_slot *slots = slots_of(r, place_of(r, id));

	memset(slots, 0, blocks * sizeof *slots);
	/* Behind the last block that another record could begin at, the engine closes the segment. */
	while (position + (position ? 3 : 2) <= blocks && at->seq != stop_seq) {
		struct lc_record_info info;
		int ret = read_blocks(r, id, position, 1, r->segment);

		if (ret)
			return ret;
		if (!lc_record_decode(r->segment, &info, r->entries) ||
		    !belongs(r, &info, id, position, at))
			return 0;
		if (verify && at->seq > r->known_durable && !LC_MUTANT(no_data_crc_at_cut)) {
			ret = intact(r, id, position, r->entries, info.nr_entries);
			if (ret <= 0)
				return ret;
		}
		memcpy(&slots[position + 1], r->entries, info.nr_entries * sizeof *slots);
		if (info.durable_seq > r->known_durable)
			r->known_durable = info.durable_seq;
		at->epoch = info.epoch;
		at->seq++;
		position += 1 + info.nr_entries;
	}
	return 0;
}

static bool summary_counts(const struct recovery *r, const struct place *p)
{
	return p->summary_id && summary_fits(p) &&
	       (p->summary_last_seq <= r->known_durable || LC_MUTANT(trust_summary)) &&
	       !is_void(r, p->summary_epoch, p->summary_last_seq);
}

/*
 * Bring the cursor from the first record of segment ID, which is at hand, to the seq after its last one. The
 * scan has read all there is to know of a segment with a summary, or of one that a single record fills;
 * the others are walked.
 */
static int follow(struct recovery *r, u64 id, struct cursor *at, u64 stop_seq, bool verify)
{
	const struct place *p = &r->places[place_of(r, id)];

	if (summary_counts(r, p)) {
		at->seq = p->summary_last_seq + 1;
		at->epoch = p->summary_epoch;
		return 0;
	}
	if (!p->summary_id && p->nr_first + 4u > r->core->ring.segment_blocks &&
	    p->seq <= r->known_durable) {
		at->seq++;
		at->epoch = p->epoch;
		return 0;
	}
	return walk(r, id, at, stop_seq, verify);
}

/* --- the dirty part: tail + 1 and up --- */

static void enter_segment(struct recovery *r, u64 id, u64 last_seq)
{
	lc_ring_set_segment(&r->core->ring, id,
			    (struct lc_segment){
				    .id = id,
				    .last_seq = last_seq,
				    .buffer = -1,
				    .state = LC_SEGMENT_CLOSED,
			    });
}

static int corrupt(struct recovery *r, u64 id, u64 seq)
{
	return lc_fail(r->err, -EUCLEAN,
		       "%s: record %llu (in segment %llu or after it) is damaged or missing, though "
		       "records up to %llu were durable: the cache device is corrupt, and what "
		       "it holds for the backing store cannot all be found; nothing was changed",
		       r->core->ssd->name, (unsigned long long)seq, (unsigned long long)id,
		       (unsigned long long)r->known_durable);
}

static int chain_dirty(struct recovery *r)
{
	struct lc_core *c = r->core;
	struct lc_ring *ring = &c->ring;
	struct cursor at = {.seq = c->meta.sb.tail_seq};
	u64 id = c->meta.sb.tail_id;

	ring->head_id = id;
	for (id++; id < c->meta.sb.tail_id + ring->nr; id++) {
		struct place *p = &r->places[place_of(r, id)];
		u64 begin = at.seq;
		int ret;

		if (p->unreadable)
			return unreadable(r, id, lc_ring_first_slot(ring, id), -EIO);
		if (p->id != id || (p->seq != at.seq && !LC_MUTANT(no_seq_check)) ||
		    (p->epoch < at.epoch && !LC_MUTANT(no_epoch_check)) ||
		    is_void(r, p->epoch, p->seq))
			break;
		ret = follow(r, id, &at, 0, true);
		if (ret)
			return ret;
		if (at.seq == begin)
			break; /* its first record is torn */
		enter_segment(r, id, at.seq - 1);
		ring->head_id = id;
		r->out->dirty_records += at.seq - begin;
	}
	r->out->cut_seq = at.seq - 1;
	return 0;
}

/*
 * Could a place hold records beyond the cut? Where the chain ended, where it should have gone on (even if the
 * header there is broken), and wherever a first header says so.
 */
static bool beyond_cut(const struct recovery *r, u32 i)
{
	const struct place *p = &r->places[i];
	u64 head = r->core->ring.head_id;

	if (!p->id)
		return i == place_of(r, head + 1);
	return p->id >= head && p->id != r->core->meta.sb.tail_id && !is_void(r, p->epoch, p->seq);
}

/*
 * One place into r->segment. What cannot be read becomes zeros: it is a data block, or a header that nothing leads
 * to; that the chain's own next header cannot be read was refused before.
 */
static void read_what_can_be_read(struct recovery *r, u32 place)
{
	struct lc_core *c = r->core;
	u32 blocks = c->ring.segment_blocks;
	u64 at = lc_slot_offset_bytes(c->ring.zone_blocks + place * blocks);

	if (!lc_store_read(c->ssd, r->segment, blocks * LC_BLOCK, at))
		return;
	for (u32 k = 0; k < blocks; k++) {
		u8 *block = r->segment + (size_t)k * LC_BLOCK;

		if (lc_store_read(c->ssd, block, LC_BLOCK, at + (u64)k * LC_BLOCK))
			memset(block, 0, LC_BLOCK);
	}
}

/*
 * I11: does a record beyond the cut, though nothing leads to it any more, prove that the record at the cut
 * had been durable? Then that was no torn tail.
 */
static int look_beyond(struct recovery *r)
{
	struct lc_ring *ring = &r->core->ring;
	u64 cut = r->out->cut_seq, head = ring->head_id;

	for (u32 i = 0; i < ring->nr; i++) {
		struct lc_record_info info;

		if (!beyond_cut(r, i))
			continue;
		read_what_can_be_read(r, i);
		for (u32 k = 0; k < ring->segment_blocks; k++)
			if (lc_record_decode(r->segment + (size_t)k * LC_BLOCK, &info, r->entries) &&
			    our_uuid(r, info.uuid) && info.segment_id >= head &&
			    info.segment_id < r->core->meta.sb.tail_id + ring->nr &&
			    place_of(r, info.segment_id) == i && info.seq > cut &&
			    info.position == k && !is_void(r, info.epoch, info.seq) &&
			    info.durable_seq > r->known_durable)
				r->known_durable = info.durable_seq;
	}
	return r->known_durable > cut ? corrupt(r, head, cut + 1) : 0;
}

/* --- the clean part: the tail and down --- */

/* Load segment ID if its last record is END_SEQ - 1. 1, 0 if there is a gap here. Read errors are gaps. */
static int load_clean(struct recovery *r, u64 id, u64 end_seq)
{
	struct place *p = &r->places[place_of(r, id)];
	struct cursor at = {.seq = p->seq};
	struct lc_error *err = r->err;
	int ret;

	if (p->unreadable || p->id != id || p->seq >= end_seq || is_void(r, p->epoch, p->seq))
		return 0;
	r->err = NULL; /* a clean segment that cannot be read is merely cold */
	ret = follow(r, id, &at, end_seq, false);
	r->err = err;
	if (ret || (at.seq != end_seq && !LC_MUTANT(clean_past_gap)))
		return 0;
	enter_segment(r, id, end_seq - 1);
	return 1;
}

/* The oldest id that could be loaded; tail + 1 if there is none. */
static u64 chain_clean(struct recovery *r)
{
	const struct lc_ring *ring = &r->core->ring;
	u64 id = r->core->meta.sb.tail_id, end_seq = r->core->meta.sb.tail_seq;

	while (id > 0 && id + ring->nr > ring->head_id && load_clean(r, id, end_seq)) {
		end_seq = r->places[place_of(r, id)].seq;
		r->out->clean_segments++;
		id--;
	}
	return id + 1;
}

/* --- replay --- */

/* The volume of an entry, NULL if the entry is void: the volume is gone, or began anew since. */
static const struct lc_volume_entry *volume_of(const struct recovery *r, u64 key, u64 seq)
{
	const struct lc_volume_entry *v = &r->core->meta.volumes[lc_key_volume(key)];

	return v->id && seq >= v->from_seq ? v : NULL;
}

static int beyond_end(struct recovery *r, u64 id, const struct lc_volume_entry *v, u64 block)
{
	return lc_fail(r->err, -EUCLEAN,
		       "%s: segment %llu holds block %llu of volume \"%s\", which has only %llu bytes: the "
		       "cache device is corrupt; nothing was changed",
		       r->core->ssd->name, (unsigned long long)id, (unsigned long long)block,
		       v->name, (unsigned long long)v->size_bytes);
}

static void replay_data(struct recovery *r, u32 slot, u64 seq, bool dirty)
{
	struct lc_core *c = r->core;
	u64 key = lc_index_slot(&c->ring.index, slot)->key;
	u32 old;

	if (!LC_MUTANT(lost_copies_count) &&
	    lc_bad_voids(&c->meta.bad, lc_key_volume(key), lc_key_block(key), seq))
		return; /* I10: it, or what superseded it, was found to be lost */
	lc_block_publish(&c->ring, slot, &old);
	if (dirty)
		lc_bad_clear(&c->meta.bad, lc_key_volume(key), lc_key_block(key), lc_key_mask(key));
	else
		lc_block_clean(&c->ring, slot);
}

/*
 * A range was zeroed. Above the tail the backing store may not know it, or only partly: the range is pending
 * again. At or below the tail only older blocks in the index have to go.
 */
static int replay_zero(struct recovery *r, u64 id, u32 slot, u64 seq, bool dirty)
{
	struct lc_core *c = r->core;
	struct lc_ring *ring = &c->ring;
	const struct lc_slot *s = lc_index_slot(&ring->index, slot);
	u8 volume = lc_key_volume(s->key);
	u64 block = lc_key_block(s->key), at = block;

	if (LC_MUTANT(replay_without_zeros))
		return 0;
	lc_blocks_drop(ring, volume, &at, block + s->crc, UINT32_MAX);
	if (!dirty)
		return 0;
	if (lc_ring_zeros_full(ring))
		return lc_fail(r->err, -EUCLEAN,
			       "%s: segment %llu zeroes a range, and so do more than %u records above the "
			       "tail: the cache device is corrupt; nothing was changed",
			       c->ssd->name, (unsigned long long)id, ring->zeros.max);
	lc_zeros_claim(ring, slot);
	lc_zeros_add(ring, slot);
	/* Copies that were lost at or after this record stay lost; seq - 1: what is older is not. */
	lc_bad_clear_range(&c->meta.bad, volume, block, s->crc, seq - 1);
	return 0;
}

/* Entries whose buckets are on their way into the CPU's cache at a time. */
#define REPLAY_AHEAD 32u

static void prefetch_entry(const struct lc_ring *ring, u32 slot)
{
	u64 key = lc_index_slot(&ring->index, slot)->key;

	lc_index_prefetch(&ring->index, lc_key_volume(key), lc_key_block(key));
}

static int replay_segment(struct recovery *r, u64 id)
{
	struct lc_core *c = r->core;
	struct lc_ring *ring = &c->ring;
	bool dirty = id > c->meta.sb.tail_id;
	u32 first = lc_ring_first_slot(ring, id);
	u64 seq = r->places[place_of(r, id)].seq - 1;
	int ret = 0;

	for (u32 i = 0; i < ring->segment_blocks && !ret; i++) {
		const struct lc_slot *s = lc_index_slot(&ring->index, first + i);
		const struct lc_volume_entry *v;
		u64 end = lc_key_block(s->key) + (lc_key_zeroes(s->key) ? s->crc : 1);

		if (i + REPLAY_AHEAD < ring->segment_blocks)
			prefetch_entry(ring, first + i + REPLAY_AHEAD);
		if (lc_key_type(s->key) == LC_ENTRY_NONE) {
			seq++; /* a header; behind the last record it does not matter */
			continue;
		}
		v = volume_of(r, s->key, seq);
		if (!v)
			continue;
		if (end > (v->size_bytes + LC_BLOCK - 1) / LC_BLOCK)
			return beyond_end(r, id, v, end - 1);
		if (lc_key_zeroes(s->key))
			ret = replay_zero(r, id, first + i, seq, dirty);
		else
			replay_data(r, first + i, seq, dirty);
	}
	return ret;
}

static int run(struct recovery *r)
{
	struct lc_ring *ring = &r->core->ring;
	u64 oldest;
	int ret = scan(r);

	if (ret)
		return ret;
	sort_births(r);
	ret = chain_dirty(r);
	if (!ret)
		ret = look_beyond(r);
	if (ret)
		return ret;
	oldest = chain_clean(r);
	for (u64 id = oldest; id <= ring->head_id && !ret; id++)
		ret = replay_segment(r, id);
	ring->tail_id = r->core->meta.sb.tail_id;
	ring->free_id = ring->head_id;
	return ret;
}

int lc_recover(struct lc_core *core, struct lc_recovery *out, struct lc_error *err)
{
	const struct lc_ring *ring = &core->ring;
	size_t segment_bytes = (size_t)ring->segment_blocks * LC_BLOCK;
	size_t places_bytes = ring->nr * sizeof(struct place);
	size_t births_bytes = ((size_t)ring->nr + 1) * sizeof(struct birth);
	struct recovery *r = lc_alloc(sizeof *r);
	int ret = -ENOMEM;

	*out = (struct lc_recovery){0};
	if (!r)
		return lc_fail(err, ret, "%s: no memory for recovery", core->ssd->name);
	r->core = core;
	r->out = out;
	r->err = err;
	r->known_durable = core->meta.sb.durable_seq;
	r->places = lc_alloc(places_bytes);
	r->births = lc_alloc(births_bytes);
	r->segment = lc_alloc(segment_bytes);
	if (r->places && r->births && r->segment)
		ret = run(r);
	else
		lc_fail(err, ret, "%s: no memory for recovery", core->ssd->name);
	lc_free(r->places, places_bytes);
	lc_free(r->births, births_bytes);
	lc_free(r->segment, segment_bytes);
	lc_free(r, sizeof *r);
	return ret;
}
