/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_write.c - what a repair changes, in the overlay, and what it says.
 */
#include "repair_priv.h"

#include <stdarg.h>
#include <stdio.h>

void repair_tell(struct repair *r, enum lc_repair_line what, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	r->say(r->arg, what, text);
}

int repair_no_memory(struct repair *r)
{
	return lc_fail(r->err, -ENOMEM, "%s: no memory to repair it", r->in->ssd->name);
}

int repair_impossible(struct repair *r, const char *why)
{
	return lc_fail(r->err, -EUCLEAN, "%s: cannot be repaired: %s; nothing was changed",
		       r->in->ssd->name, why);
}

int repair_put(struct repair *r, u64 id, u32 position, const void *block)
{
	u64 slot = lc_ring_first_slot(&r->in->core.ring, id) + position;

	r->changed = true;
	return lc_overlay_put(&r->in->overlay, slot, block) ? repair_no_memory(r) : 0;
}

/* --- metadata --- */

static int write_page(struct repair *r, u32 page)
{
	struct lc_core *core = &r->in->core;

	r->changed = true;
	return lc_meta_write(&core->meta, &core->lock, page,
			     (struct lc_flusher){lc_meta_flush_store, NULL, core->meta.ssd}) ?
		       repair_no_memory(r) :
		       0;
}

int repair_write_lists(struct repair *r)
{
	int err = 0;

	for (u32 i = 0; i < LC_NR_BAD_PAGES && !err; i++)
		if (r->in->core.meta.bad.changed[i])
			err = write_page(r, LC_PAGE_BAD + i);
	return err;
}

/*
 * The log ends at record SEQ. New records will have the seqs of lost ones: whatever names those must not be
 * about the new ones.
 */
int repair_cut(struct repair *r, u64 seq, u64 named)
{
	char text[LC_COUNT_BYTES];
	struct lc_meta *m = &r->in->core.meta;
	u64 epoch = m->sb.epoch;
	int err = 0;

	for (u32 i = 0; i < r->in->nr_births; i++)
		if (r->in->births[i].epoch > epoch)
			epoch = r->in->births[i].epoch;
	repair_tell(r, LC_REPAIR_DOES,
		    "superblock: the log is cut after record %llu, nothing behind it counts any more",
		    (ull)seq);
	repair_tell(r, LC_REPAIR_LOSES,
		    "records %llu to %llu, which were durable; what is left of their headers names %s; of "
		    "others nobody knows which they were, and they read as they were before",
		    (ull)seq + 1, (ull)r->known_durable, lc_count_text(text, named, "block"));
	for (u32 id = 1; id <= LC_VOLUMES_MAX && !err; id++)
		if (m->volumes[id].from_seq > seq + 1) {
			m->volumes[id].from_seq = seq + 1;
			err = write_page(r, lc_volume_page(id));
		}
	for (u32 i = 0; i < m->bad.used; i++)
		if (m->bad.entries[i].key && m->bad.entries[i].seq > seq) {
			m->bad.entries[i].seq = seq;
			m->bad.changed[i / LC_BAD_PER_PAGE] = true;
		}
	if (!err)
		err = repair_write_lists(r);
	m->sb.epoch = epoch + 1;
	m->sb.first = seq + 1;
	m->sb.durable_seq = seq;
	m->sb.clean = m->sb.settled = false;
	return err ? err : write_page(r, LC_PAGE_SUPERBLOCK);
}
