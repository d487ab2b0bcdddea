/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dump_json.c - a dump for programs. Names of members are those of the fields in docs/format.md; they stay.
 */
#include "dump.h"
#include "json.h"
#include "logcache/settings.h"

static struct json out;

static void put_copies(const struct lc_inspect *in)
{
	char uuid[40];

	json_open(&out, "pages", '[');
	for (u32 page = 0; page < LC_NR_PAGES; page++) {
		json_open(&out, NULL, '{');
		json_number(&out, "page", page);
		json_bool(&out, "lost", dump_counts(in, page) < 0);
		json_bool(&out, "differ", in->differ[page]);
		json_open(&out, "copies", '[');
		for (int i = 0; i < 2; i++) {
			const struct lc_copy *c = &in->copies[page][i];

			json_open(&out, NULL, '{');
			json_text(&out, "state", dump_copy_state(c->state));
			json_number(&out, "version", c->version);
			json_number(&out, "generation", c->generation);
			json_text(&out, "uuid", dump_uuid(uuid, c->uuid));
			json_bool(&out, "counts", dump_counts(in, page) == i);
			json_close(&out, '}');
		}
		json_close(&out, ']');
		json_close(&out, '}');
	}
	json_close(&out, ']');
}

static void put_superblock(const struct lc_inspect *in)
{
	const struct lc_superblock *sb = &in->core.meta.sb;
	char uuid[40];

	json_open(&out, "superblock", '{');
	json_text(&out, "uuid", dump_uuid(uuid, in->core.meta.uuid));
	json_text(&out, "label", sb->label);
	json_number(&out, "compat", sb->compat);
	json_number(&out, "ro_compat", sb->ro_compat);
	json_number(&out, "incompat", sb->incompat);
	json_number(&out, "device_blocks", sb->device_blocks);
	json_number(&out, "zone_blocks", sb->zone_blocks);
	json_number(&out, "segment_blocks", sb->segment_blocks);
	json_number(&out, "segments", sb->nr_segments);
	json_bool(&out, "clean", sb->clean);
	json_number(&out, "epoch", sb->epoch);
	json_number(&out, "first", sb->first);
	json_number(&out, "tail_id", sb->tail_id);
	json_number(&out, "tail_seq", sb->tail_seq);
	json_number(&out, "durable_seq", sb->durable_seq);
	json_open(&out, "settings", '{');
	for (unsigned i = 0; lc_setting_at(i); i++)
		if (sb->kept & 1u << lc_setting_at(i)->number)
			json_number(&out, lc_setting_at(i)->key,
				    sb->values[lc_setting_at(i)->number]);
	json_close(&out, '}');
	json_close(&out, '}');
}

static void put_log(const struct lc_inspect *in)
{
	const struct lc_ring *ring = &in->core.ring;

	json_open(&out, "log", '{');
	if (in->log_error) {
		json_text(&out, "error", in->log_text.text);
	} else {
		json_number(&out, "head_id", ring->head_id);
		json_number(&out, "last_seq", in->recovery.cut_seq);
		json_number(&out, "dirty_segments", ring->head_id - ring->tail_id);
		json_number(&out, "dirty_blocks", ring->dirty_blocks);
		json_number(&out, "pending_zero_blocks", ring->zeros.blocks);
		json_number(&out, "cached_blocks", ring->index.nr_entries);
	}
	json_close(&out, '}');
}

static void put_volumes(const struct lc_inspect *in)
{
	const struct lc_ring *ring = &in->core.ring;
	char uuid[40];

	json_open(&out, "volumes", '[');
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *v = &in->core.meta.volumes[id];

		if (!v->id)
			continue;
		json_open(&out, NULL, '{');
		json_number(&out, "id", id);
		json_text(&out, "name", v->name);
		json_text(&out, "uuid", dump_uuid(uuid, v->uuid));
		json_number(&out, "size_bytes", v->size_bytes);
		json_number(&out, "from_seq", v->from_seq);
		json_bool(&out, "unverified", v->unverified);
		if (!in->log_error) {
			json_number(&out, "cached_blocks", ring->live_of[id]);
			json_number(&out, "dirty_blocks",
				    ring->dirty_of[id] + ring->zeros.blocks_of[id]);
		}
		json_close(&out, '}');
	}
	json_close(&out, ']');
	json_open(&out, "lost_blocks", '[');
	for (u32 i = 0; i < in->core.meta.bad.used; i++) {
		const struct lc_bad_entry *e = &in->core.meta.bad.entries[i];

		if (!e->key)
			continue;
		json_open(&out, NULL, '{');
		json_number(&out, "volume", lc_key_volume(e->key));
		json_number(&out, "block", lc_key_block(e->key));
		json_number(&out, "mask", lc_key_mask(e->key));
		json_number(&out, "seq", e->seq);
		json_close(&out, '}');
	}
	json_close(&out, ']');
}

static void cache(const struct lc_inspect *in)
{
	json_open(&out, NULL, '{');
	json_text(&out, "cache", in->ssd->name);
	json_number(&out, "size_bytes", in->ssd->size_bytes);
	put_copies(in);
	if (in->meta_error) {
		json_text(&out, "error", in->meta_text.text);
		return;
	}
	put_superblock(in);
	put_log(in);
	put_volumes(in);
}

static void segments(const struct lc_inspect *in, bool begin)
{
	(void)in;
	if (begin)
		json_open(&out, "places", '[');
	else
		json_close(&out, ']');
}

static void segment(const struct lc_inspect *in, const struct dump_segment *s, bool begin)
{
	(void)in;
	if (!begin) {
		if (s->place->id)
			json_close(&out, ']');
		json_close(&out, '}');
		return;
	}
	json_open(&out, NULL, '{');
	json_number(&out, "place", s->number);
	json_text(&out, "state", dump_content(s->place->state));
	if (!s->place->id)
		return;
	json_number(&out, "id", s->place->id);
	json_number(&out, "first_seq", s->place->seq);
	json_number(&out, "last_seq", s->last_seq);
	json_number(&out, "epoch", s->place->epoch);
	json_number(&out, "nr_records", s->records);
	json_number(&out, "nr_entries", s->entries);
	json_number(&out, "nr_zeros", s->zeros);
	json_number(&out, "blocks", s->blocks);
	json_bool(&out, "summary", s->summary);
	json_open(&out, "records", '[');
}

static void record(const struct lc_inspect *in, const struct lc_record_info *r,
		   const struct lc_slot *entries)
{
	json_open(&out, NULL, '{');
	json_number(&out, "seq", r->seq);
	json_number(&out, "epoch", r->epoch);
	json_number(&out, "first", r->first);
	json_number(&out, "durable_seq", r->durable_seq);
	json_number(&out, "position", r->position);
	json_bool(&out, "void", lc_inspect_void(in, r->epoch, r->seq));
	json_open(&out, "entries", '[');
	for (u32 i = 0; i < r->nr_entries; i++) {
		u64 key = entries[i].key;

		json_open(&out, NULL, '{');
		json_text(&out, "type", dump_entry_type(key));
		json_number(&out, "volume", lc_key_volume(key));
		json_number(&out, "block", lc_key_block(key));
		json_number(&out, "mask", lc_key_mask(key));
		json_number(&out, lc_key_zeroes(key) ? "blocks" : "crc", entries[i].crc);
		json_close(&out, '}');
	}
	json_close(&out, ']');
	json_close(&out, '}');
}

static void end(const struct lc_inspect *in)
{
	(void)in;
	json_close(&out, '}');
}

const struct dump_form dump_json = {cache, segments, segment, record, end};
