/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dump_text.c - a dump for people.
 */
#include <stdio.h>

#include "cache.h"
#include "dump.h"
#include "logcache/settings.h"
#include "size.h"

typedef unsigned long long ull;

static void show_pages(const struct lc_inspect *in)
{
	for (u32 page = 0; page < LC_NR_PAGES; page++) {
		const struct lc_copy *c = in->copies[page];
		int counts = dump_counts(in, page);

		/* The superblock always; of the others what is not as it should be. */
		if (page != LC_PAGE_SUPERBLOCK && c[0].state == LC_COPY_OK &&
		    c[1].state == LC_COPY_OK && c[0].generation == c[1].generation)
			continue;
		for (int i = 0; i < 2; i++) {
			printf("%s page %u, copy %d: %s",
			       page == LC_PAGE_SUPERBLOCK ? "superblock," : "metadata", page, i + 1,
			       dump_copy_state(c[i].state));
			if (c[i].state == LC_COPY_UNKNOWN)
				printf(" (%u)", c[i].version);
			if (c[i].state == LC_COPY_OK || c[i].state == LC_COPY_FOREIGN)
				printf(", generation %llu", (ull)c[i].generation);
			printf("%s\n", counts == i ? ", counts" : "");
		}
		if (in->lost[page])
			printf("metadata page %u is lost; what follows takes it for empty\n", page);
	}
}

static void show_superblock(const struct lc_inspect *in)
{
	const struct lc_superblock *sb = &in->core.meta.sb;
	char text[SIZE_TEXT_BYTES], uuid[40];

	printf("uuid            %s\n", dump_uuid(uuid, in->core.meta.uuid));
	printf("label           %s\n", sb->label);
	printf("features        compat %#llx, ro-compat %#llx, incompat %#llx\n", (ull)sb->compat,
	       (ull)sb->ro_compat, (ull)sb->incompat);
	printf("device          %u blocks (%s), %u of them metadata zone\n", (u32)sb->device_blocks,
	       size_text(text, sb->device_blocks * LC_BLOCK), sb->zone_blocks);
	printf("segments        %u of %s\n", sb->nr_segments,
	       size_text(text, (u64)sb->segment_blocks * LC_BLOCK));
	printf("closed          %s\n", sb->clean ? "in good order" : "no: a crash, or being served");
	printf("epoch           %llu, began at record %llu\n", (ull)sb->epoch, (ull)sb->first);
	printf("tail            segment %llu, followed by record %llu\n", (ull)sb->tail_id,
	       (ull)sb->tail_seq);
	printf("durable         up to record %llu at least\n", (ull)sb->durable_seq);
	for (unsigned i = 0; lc_setting_at(i); i++) {
		const struct lc_setting *k = lc_setting_at(i);

		if (sb->kept & 1u << k->number)
			printf("setting         %s=%llu %s\n", k->key, (ull)sb->values[k->number],
			       k->unit);
	}
}

static void show_log(const struct lc_inspect *in)
{
	const struct lc_ring *ring = &in->core.ring;
	char segments[LC_COUNT_BYTES], blocks[LC_COUNT_BYTES];

	if (in->log_error) {
		printf("log             cannot be followed: %s\n", in->log_text.text);
		printf("                (what counts, and what is dirty, is not known; the states of "
		       "segments are a guess)\n");
		return;
	}
	printf("log             ends in segment %llu with record %llu\n", (ull)ring->head_id,
	       (ull)in->recovery.cut_seq);
	printf("dirty           %s, %s, and %llu to be zeroed\n",
	       lc_count_text(segments, ring->head_id - ring->tail_id, "segment"),
	       lc_count_text(blocks, ring->dirty_blocks, "block"), (ull)ring->zeros.blocks);
	printf("cached          %s\n", lc_count_text(blocks, ring->index.nr_entries, "block"));
}

static void show_volumes(const struct lc_inspect *in)
{
	const struct lc_ring *ring = &in->core.ring;
	char uuid[40], text[SIZE_TEXT_BYTES], blocks[LC_COUNT_BYTES];

	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		const struct lc_volume_entry *v = &in->core.meta.volumes[id];

		if (!v->id)
			continue;
		printf("volume %-8u %s, %llu bytes (%s), uuid %s, from record %llu%s", id,
		       lc_volume_shown(v->name), (ull)v->size_bytes, size_text(text, v->size_bytes),
		       dump_uuid(uuid, v->uuid), (ull)v->from_seq,
		       v->unverified ? ", unverified" : "");
		if (!in->log_error)
			printf(", %s cached, %llu dirty",
			       lc_count_text(blocks, ring->live_of[id], "block"),
			       (ull)ring->dirty_of[id] + ring->zeros.blocks_of[id]);
		printf("\n");
	}
	for (u32 i = 0; i < in->core.meta.bad.used; i++) {
		const struct lc_bad_entry *e = &in->core.meta.bad.entries[i];

		if (e->key)
			printf("lost            volume %s, block %llu, sectors 0x%02x, up to record %llu\n",
			       lc_inspect_volume(in, lc_key_volume(e->key)),
			       (ull)lc_key_block(e->key), lc_key_mask(e->key), (ull)e->seq);
	}
}

static void cache(const struct lc_inspect *in)
{
	printf("cache           %s, %llu bytes\n", in->ssd->name, (ull)in->ssd->size_bytes);
	show_pages(in);
	if (in->meta_error) {
		printf("nothing else can be told: %s\n", in->meta_text.text);
		return;
	}
	show_superblock(in);
	show_log(in);
	show_volumes(in);
}

static void segments(const struct lc_inspect *in, bool begin)
{
	(void)in;
	if (begin)
		printf("\n%12s %8s %-10s %14s %14s %8s %7s %7s %7s  %s\n", "segment", "place",
		       "state", "first record", "last", "epoch", "records", "entries", "zeros",
		       "summary");
}

static void segment(const struct lc_inspect *in, const struct dump_segment *s, bool begin)
{
	(void)in;
	if (!begin)
		return;
	if (!s->place->id) {
		printf("%12s %8u %-10s\n", "?", s->number, dump_content(s->place->state));
		return;
	}
	printf("%12llu %8u %-10s %14llu %14llu %8llu %7u %7u %7u  %s\n", (ull)s->place->id,
	       s->number, dump_content(s->place->state), (ull)s->place->seq, (ull)s->last_seq,
	       (ull)s->place->epoch, s->records, s->entries, s->zeros, s->summary ? "yes" : "no");
}

static void record(const struct lc_inspect *in, const struct lc_record_info *r,
		   const struct lc_slot *entries)
{
	printf("  record %llu, block %u, epoch %llu from record %llu, durable up to %llu%s\n",
	       (ull)r->seq, r->position, (ull)r->epoch, (ull)r->first, (ull)r->durable_seq,
	       lc_inspect_void(in, r->epoch, r->seq) ? ", void" : "");
	for (u32 i = 0; i < r->nr_entries; i++) {
		char blocks[LC_COUNT_BYTES];
		u64 key = entries[i].key;

		printf("    %u: %s volume %u (%s), block %llu", r->position + 1 + i,
		       dump_entry_type(key), lc_key_volume(key),
		       lc_inspect_volume(in, lc_key_volume(key)), (ull)lc_key_block(key));
		if (lc_key_zeroes(key))
			printf(", %s\n", lc_count_text(blocks, entries[i].crc, "block"));
		else
			printf(", sectors 0x%02x, crc %08x\n", lc_key_mask(key), entries[i].crc);
	}
}

static void end(const struct lc_inspect *in)
{
	(void)in;
}

const struct dump_form dump_text = {cache, segments, segment, record, end};
