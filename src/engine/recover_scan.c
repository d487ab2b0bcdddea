/* SPDX-License-Identifier: BSD-3-Clause */
/* recover_scan.c - the first header and the summary of every segment, with a deep queue. */
#include <string.h>

#include "recover_priv.h"

/* Twice what keeps an SSD busy: while we decode what has come, the other half is on its way. */
#define SCAN_DEPTH 128u

/* One read of the scan: the last block of the place before, and the first of this one. */
struct scan_io {
	struct lc_io io;
	u32 place;
	struct scan_io *next;
};

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

	if (s->place > 0) {
		if (!failed)
			scan_summary(r, s->place - 1, s->io.buf);
		r->places[s->place - 1].seen++;
	}
	if (s->place == c->ring.nr)
		return;
	r->places[s->place].seen++;
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
int lc_recover_scan(struct recovery *r)
{
	struct lc_core *c = r->core;
	const struct lc_ring *ring = &c->ring;
	u64 progress_ns = lc_now_ns() + LC_RECOVER_PROGRESS_NS;
	struct scan_io *ios = lc_alloc(SCAN_DEPTH * sizeof *ios), *unused = NULL;
	u8 *memory = lc_alloc(SCAN_DEPTH * 2 * LC_BLOCK);
	struct lc_area area = {memory, SCAN_DEPTH * 2 * LC_BLOCK};
	struct lc_queue *q = NULL;
	u32 place = 0, in_flight = 0, scanned = 0;
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
		while (scanned < ring->nr && r->places[scanned].seen == 2)
			scanned++;
		lc_eager_scanned(r, scanned);
		if (lc_now_ns() >= progress_ns) {
			lc_log(LC_LOG_INFO, "%s: recovery: %u of %u segments scanned", c->ssd->name,
			       scanned, ring->nr);
			progress_ns = lc_now_ns() + LC_RECOVER_PROGRESS_NS;
		}
	}
	lc_queue_close(q);
out:
	lc_free(ios, SCAN_DEPTH * sizeof *ios);
	lc_free(memory, SCAN_DEPTH * 2 * LC_BLOCK);
	return ret;
}
