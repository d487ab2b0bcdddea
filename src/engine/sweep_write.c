/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep_write.c - the end of the belt: runs that were read are verified, and written to the backing store.
 */
#include "sweep.h"

#include <string.h>

#include "fingerprint.h"

/* --- verify --- */

/* Does the SSD itself say that it has lost the data? All else (no memory, a lost link) may pass. */
static bool medium_error(int err)
{
	return err == -EIO || err == -ENODATA || err == -EILSEQ || err == -EBADMSG;
}

/*
 * Is the content of a block what was written? If not, the SSD is asked once more: the read may have failed for a
 * neighbour's sake, or the copy in the buffer may be the bad one; then the backing store, which may have it from before a
 * crash. 0 yes, 1 no and the block is lost, -errno if it is too early to say. If that is so because the backing store fails,
 * the turn has failed, and 0 says no more.
 */
static int verify_piece(struct lc_sweep *sw, struct lc_piece *p, u64 nr, u8 *block)
{
	int err, written;

	if (!p->bad && lc_crc32c(block, LC_BLOCK) == p->crc)
		return 0;
	err = lc_store_read(sw->core->ssd, block, LC_BLOCK, lc_slot_offset_bytes(p->slot));
	p->wrong = !err && lc_crc32c(block, LC_BLOCK) != p->crc;
	p->bad = err || p->wrong;
	if (!p->bad)
		return 0;
	if (err && !medium_error(err))
		return err;
	written = lc_volume_backing_agrees(sw->v, nr, p->mask, p->crc, block);
	p->bad = written <= 0;
	/* A disk that is gone calls it a medium error, too; but it does not flush. */
	if (written < 0 && (!medium_error(written) || lc_store_flush(sw->v->backing)) &&
	    !LC_MUTANT(lost_unasked)) {
		lc_sweep_backing_failed(sw, written);
		return 0;
	}
	return p->bad;
}

/*
 * I10: a dirty block that cannot be read is lost, unless it was overwritten meanwhile. It stays in the index, and
 * answers EIO by itself, until the list that says so is durable: no crash may let the backing store's
 * old data come through.
 */
static int lose_piece(struct lc_sweep *sw, const struct lc_piece *p, u64 block)
{
	struct lc_core *c = sw->core;
	const struct lc_slot *s = lc_index_slot(&c->ring.index, p->slot);
	bool lost;
	int page = 0, err;

	lc_mutex_lock(&c->lock);
	lost = s->key & LC_SLOT_DIRTY;
	if (lost)
		page = lc_bad_add(&c->meta.bad, sw->v->id, block, p->mask,
				  lc_ring_segment_of(&c->ring, p->slot)->last_seq);
	lc_mutex_unlock(&c->lock);
	if (!lost || page < 0)
		return page;
	err = lc_meta_write(&c->meta, &c->lock, LC_PAGE_BAD + page, lc_log_flusher(sw->log));
	if (err)
		return err;
	lc_mutex_lock(&c->lock);
	lost = s->key & LC_SLOT_DIRTY;
	if (lost) {
		lc_block_drop(&c->ring, p->slot);
		c->stats.lost_blocks++;
	}
	lc_mutex_unlock(&c->lock);
	if (lost)
		lc_log(LC_LOG_ERROR,
		       "%s: block %llu of %s cannot be read back and is lost: it answers with an "
		       "input/output error until it is overwritten",
		       c->ssd->name, (unsigned long long)block, sw->v->backing->name);
	return 0;
}

/* --- write --- */

/* Runs that are done leave the belt in order. */
static void leave_belt(struct lc_sweep *sw)
{
	while (sw->oldest < sw->next_write && !lc_sweep_run(sw, sw->oldest)->nr_ios)
		sw->oldest++;
}

/* Bytes [from, to) of the run, which lie in or are copied to frame AT, whose I/O is free. */
static void submit_write(struct lc_sweep *sw, struct lc_run *r, u32 at, u32 from_bytes, u32 to_bytes)
{
	struct lc_io *io = &sw->ios[at];

	*io = (struct lc_io){
		.op = LC_IO_WRITE,
		.buf = lc_sweep_frame(sw, at),
		.len_bytes = to_bytes - from_bytes,
		.offset_bytes = r->block * LC_BLOCK + from_bytes,
		.owner = r,
	};
	r->nr_ios++;
	lc_queue_submit(sw->backing[sw->v->id], io);
}

/*
 * A block of which only some sectors are ours: write those, or, where the store's logical block is larger
 * than a sector, widen it with what the store has.
 */
static int write_part(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_store *backing = sw->v->backing;
	u8 mask = sw->pieces[r->frame].mask;
	u8 *data = lc_sweep_frame(sw, r->frame), *old = lc_sweep_frame(sw, r->frame + 1);

	if (backing->block_bytes > LC_SECTOR) {
		int err = lc_store_read(backing, old, LC_BLOCK, r->block * LC_BLOCK);

		if (err)
			return err;
		for (u32 i = 0; i < LC_SECTORS_PER_BLOCK; i++)
			if (!(mask & 1u << i))
				memcpy(data + i * LC_SECTOR, old + i * LC_SECTOR, LC_SECTOR);
		submit_write(sw, r, r->frame, 0, LC_BLOCK);
		return 0;
	}
	for (u32 at = r->frame + 1; mask; at++) { /* a buffer for I/O is aligned to blocks */
		u32 first = __builtin_ctz(mask), nr = __builtin_ctz(~(u32)(mask >> first));

		mask &= ~(((1u << nr) - 1) << first);
		memcpy(lc_sweep_frame(sw, at), data + first * LC_SECTOR, nr * LC_SECTOR);
		submit_write(sw, r, at, first * LC_SECTOR, (first + nr) * LC_SECTOR);
	}
	return 0;
}

/* Whole blocks: one write, unless some are lost. */
static void write_whole(struct lc_sweep *sw, struct lc_run *r)
{
	u32 from = 0;

	for (u32 i = 0; i <= r->nr; i++) {
		if (i < r->nr && !sw->pieces[r->frame + i].bad)
			continue;
		if (i > from)
			submit_write(sw, r, r->frame + from, from * LC_BLOCK, i * LC_BLOCK);
		from = i + 1;
	}
}

static void unpin_run(struct lc_sweep *sw, const struct lc_run *r)
{
	for (u32 i = 0; i < r->nr; i++) {
		const struct lc_piece *p = &sw->pieces[r->frame + i];

		if (p->pin == LC_PIN_SSD)
			lc_log_unpin(sw->log, p->slot, p->pin);
	}
}

/* The turn has failed, and will be done again: who waits for other volumes shall not wait for this one's queue. */
static void drop_run(struct lc_sweep *sw, const struct lc_run *r)
{
	lc_mutex_lock(&sw->core->lock);
	unpin_run(sw, r);
	lc_log_unlock(sw->log);
}

/* The data of a run is there: verify it, let go of the log, and write. */
static void write_run(struct lc_sweep *sw, struct lc_run *r)
{
	struct lc_core *c = sw->core;
	struct lc_volume *v = sw->v;
	struct lc_piece *pieces = &sw->pieces[r->frame];
	u64 samples = 0;
	int err;

	for (u32 i = 0; i < r->nr; i++) {
		err = verify_piece(sw, &pieces[i], r->block + i, lc_sweep_frame(sw, r->frame + i));
		if (err > 0)
			err = lose_piece(sw, &pieces[i], r->block + i);
		if (err)
			sw->error = err;
		/* What is lost is not written: if its sample is unsure it stays so. */
		if (!pieces[i].bad)
			samples |= lc_samples_in(v->size_bytes, r->block + i, 1);
	}
	lc_mutex_lock(&c->lock);
	for (u32 i = 0; i < r->nr; i++) {
		const struct lc_piece *p = &pieces[i];

		c->stats.crc_errors += p->wrong;
		/* It can be read after all: it was listed, but that could not be made durable. */
		if (!p->bad && lc_index_slot(&c->ring.index, p->slot)->key & LC_SLOT_DIRTY)
			lc_bad_clear(&c->meta.bad, v->id, r->block + i, p->mask);
	}
	unpin_run(sw, r);
	v->touched |= samples;
	c->stats.writeback_blocks += r->nr;
	lc_log_unlock(sw->log);

	r->submitted_ns = lc_now_ns();
	if (pieces[0].mask == LC_MASK_FULL) {
		write_whole(sw, r);
	} else if (!pieces[0].bad) {
		err = write_part(sw, r);
		if (err)
			lc_sweep_backing_failed(sw, err);
	}
	lc_mutex_lock(&c->lock);
	c->stats.writeback_ios += r->nr_ios;
	lc_mutex_unlock(&c->lock);
	sw->writing += r->nr_ios > 0;
}

void lc_sweep_reap_backing(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;
	struct lc_io *done = lc_queue_wait(sw->backing[sw->v->id], LC_FOREVER);
	u64 now_ns = lc_now_ns();

	while (done) {
		struct lc_io *io = done;
		struct lc_run *r = io->owner;

		done = io->next;
		if (io->result)
			r->error = io->result;
		if (--r->nr_ios)
			continue;
		sw->writing--;
		if (r->error)
			lc_sweep_backing_failed(sw, r->error);
		lc_mutex_lock(&c->lock);
		lc_histogram_add(&c->latencies.backing_write, now_ns - r->submitted_ns);
		lc_pace_progress(c, r->error ? 0 : r->nr, now_ns);
		lc_mutex_unlock(&c->lock);
	}
	leave_belt(sw);
}

void lc_sweep_write(struct lc_sweep *sw)
{
	struct lc_core *c = sw->core;

	lc_mutex_lock(&c->lock);
	sw->depth = lc_pace_depth(c, sw->log, &sw->v->reads, LC_SWEEP_DEPTH);
	lc_mutex_unlock(&c->lock);
	while (sw->writing < sw->depth && sw->next_write < sw->next_build &&
	       !lc_sweep_next_is_read(sw)) {
		struct lc_run *r = lc_sweep_run(sw, sw->next_write++);

		if (sw->error || sw->backing_error)
			drop_run(sw, r);
		else
			write_run(sw, r);
	}
	lc_queue_start(sw->backing[sw->v->id]);
	leave_belt(sw);
}
