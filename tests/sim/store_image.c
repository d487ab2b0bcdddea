/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store_image.c - what is on a simulated disk, and what remains of it when the power goes.
 *
 * Everything works on sectors, because a sector is what a disk writes atomically. For each sector
 * the number of the write that is certain to be there is kept (media_number), so that a write which
 * a failed flush left in doubt for a long time cannot come back over a newer one that is certain.
 *
 * The images are reused from history to history; only blocks that were touched are cleared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "store_sim.h"

#define ZEROS_BYTES (8u << 20) /* the largest image */

static void *map_zeros(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("logcache-sim: image");
		exit(2);
	}
	return p;
}

static u8 *zeros;

u8 *image_zeros(void)
{
	return zeros;
}

void store_sim_create(struct store_sim *s, u64 max_bytes)
{
	memset(s, 0, sizeof(*s));
	if (!zeros)
		zeros = map_zeros(ZEROS_BYTES);
	assert(max_bytes <= ZEROS_BYTES);
	s->image_bytes = (max_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;
	s->now = map_zeros(s->image_bytes);
	s->media = map_zeros(s->image_bytes);
	s->media_number = map_zeros(s->image_bytes / LC_SECTOR * sizeof(u32));
	s->touched = map_zeros(s->image_bytes / LC_BLOCK);
}

static void free_writes(struct store_sim *s)
{
	while (s->nr_writes)
		free(s->writes[--s->nr_writes]);
}

void image_reset(struct store_sim *s)
{
	u64 b;

	for (b = 0; b < s->image_bytes / LC_BLOCK; b++) {
		if (!s->touched[b])
			continue;
		s->touched[b] = 0;
		memset(s->now + b * LC_BLOCK, 0, LC_BLOCK);
		memset(s->media + b * LC_BLOCK, 0, LC_BLOCK);
		memset(s->media_number + b * LC_SECTORS_PER_BLOCK, 0,
		       LC_SECTORS_PER_BLOCK * sizeof(u32));
	}
	free_writes(s);
	s->nr_bad = 0;
	s->last_number = s->last_done = 0;
}

/* Bytes of the sector at OFFSET that exist: the store may end inside it. */
static u32 sector_bytes(const struct store_sim *s, u64 offset)
{
	if (offset >= s->store.size_bytes)
		return 0;
	if (s->store.size_bytes - offset < LC_SECTOR)
		return (u32)(s->store.size_bytes - offset);
	return LC_SECTOR;
}

static void put_sector(struct store_sim *s, u8 *image, u64 offset, const u8 *data)
{
	s->touched[offset / LC_BLOCK] = 1;
	memcpy(image + offset, data, sector_bytes(s, offset));
}

void store_sim_preset(struct store_sim *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	u64 end = offset_bytes + len_bytes, b;

	assert(end <= s->image_bytes);
	if (end > s->store.size_bytes)
		end = s->store.size_bytes;
	memcpy(s->now + offset_bytes, buf, end - offset_bytes);
	memcpy(s->media + offset_bytes, buf, end - offset_bytes);
	for (b = offset_bytes / LC_BLOCK; b * LC_BLOCK < end; b++)
		s->touched[b] = 1;
}

const u8 *store_sim_media(const struct store_sim *s)
{
	return s->media;
}

/* --- the list of uncertain writes --- */

static void remember(struct store_sim *s, struct sim_write *w)
{
	if (s->nr_writes == s->writes_capacity) {
		s->writes_capacity = s->writes_capacity ? 2 * s->writes_capacity : 64;
		s->writes = realloc(s->writes, s->writes_capacity * sizeof(struct sim_write *));
		if (!s->writes)
			abort();
	}
	s->writes[s->nr_writes++] = w;
}

struct sim_write *image_write_begin(struct store_sim *s, u32 len_bytes, u64 offset_bytes, bool zero)
{
	struct sim_write *w = malloc(sizeof(*w) + (zero ? 0 : len_bytes));

	if (!w)
		abort();
	*w = (struct sim_write){.offset_bytes = offset_bytes,
				.len_bytes = len_bytes,
				.number = ++s->last_number,
				.zero = zero,
				.data = zero ? zeros : (u8 *)(w + 1)};
	remember(s, w);
	return w;
}

void image_check_overlap(const struct sim_io *io)
{
	const struct sim_io *o;

	for (o = io->store->submitted; o; o = o->next) {
		u64 from, to;

		if (o == io || o->done || o->op != LC_IO_WRITE)
			continue;
		from = o->offset_bytes > io->offset_bytes ? o->offset_bytes : io->offset_bytes;
		to = o->offset_bytes + o->len_bytes;
		if (to > io->offset_bytes + io->len_bytes)
			to = io->offset_bytes + io->len_bytes;
		if (from >= to)
			continue;
		/* Two that write the same do no harm; but nobody has a reason to zero and write at once. */
		if (o->zero == io->zero && !memcmp(o->buf + (from - o->offset_bytes),
						   io->buf + (from - io->offset_bytes), to - from))
			continue;
		sim_fail("%s: two %s are in flight for one place: %u bytes at %llu and %u bytes at "
			 "%llu",
			 io->store->store.name,
			 o->zero == io->zero ? "writes with different data" : "changes",
			 o->len_bytes, (unsigned long long)o->offset_bytes, io->len_bytes,
			 (unsigned long long)io->offset_bytes);
	}
}

/* --- effects --- */

void image_apply(struct sim_io *io, u32 from, u32 to)
{
	struct store_sim *s = io->store;
	u32 x;

	if (io->op == LC_IO_READ) {
		/* Beyond the end the image is never written: zeros. */
		memcpy(io->buf + from, s->now + io->offset_bytes + from, to - from);
		return;
	}
	if (!io->zero)
		memcpy(io->write->data + from, io->buf + from, to - from);
	for (x = from; x < to; x += LC_SECTOR)
		if (!io->result || sim_one_in(2)) /* a write that will fail does half of its work */
			put_sector(s, s->now, io->offset_bytes + x, io->buf + x);
}

static bool in_bad_range(struct store_sim *s, const struct sim_io *io)
{
	u32 i;

	for (i = 0; i < s->nr_bad; i++)
		if (s->bad[i].offset_bytes < io->offset_bytes + io->len_bytes &&
		    io->offset_bytes < s->bad[i].offset_bytes + s->bad[i].len_bytes)
			return true;
	return false;
}

int image_draw_fault(const struct sim_io *io)
{
	struct store_sim *s = io->store;
	const u32 ppm = io->zero	      ? s->faults.zero_ppm :
			io->op == LC_IO_READ  ? s->faults.read_ppm :
			io->op == LC_IO_WRITE ? s->faults.write_ppm :
						s->faults.flush_ppm;
	bool fails = s->faults.nth[io->op] > 0 && --s->faults.nth[io->op] == 0;

	if (ppm && sim_below(1000000) < ppm)
		fails = true;
	if (io->op == LC_IO_READ && in_bad_range(s, io))
		fails = true;
	fails |= sim_now() >= s->faults.gone_ns && sim_now() < s->faults.back_ns;
	s->nr_read_faults += fails && io->op == LC_IO_READ && !io->zero;
	return fails ? -EIO : 0;
}

/* A disk remaps a bad place when it is written. */
static void heal(struct store_sim *s, const struct sim_io *io)
{
	u32 i;

	for (i = 0; i < s->nr_bad;) {
		u64 off = s->bad[i].offset_bytes, len = s->bad[i].len_bytes;

		if (io->offset_bytes <= off && off + len <= io->offset_bytes + io->len_bytes)
			s->bad[i] = s->bad[--s->nr_bad];
		else
			i++;
	}
}

static void make_certain(struct store_sim *s, const struct sim_write *w)
{
	u32 x;

	for (x = 0; x < w->len_bytes; x += LC_SECTOR) {
		u64 off = w->offset_bytes + x;

		if (w->number < s->media_number[off / LC_SECTOR])
			continue;
		s->media_number[off / LC_SECTOR] = w->number;
		put_sector(s, s->media, off, w->data + x);
	}
}

static void flush_succeeded(struct store_sim *s, u32 covers)
{
	u32 i, kept = 0;

	for (i = 0; i < s->nr_writes; i++) {
		struct sim_write *w = s->writes[i];

		if (!w->done || w->done > covers || w->doubtful) {
			s->writes[kept++] = w;
			continue;
		}
		make_certain(s, w);
		free(w);
	}
	s->nr_writes = kept;
}

/*
 * Nothing is known of the writes since the last good flush: no later flush covers them, and a cache
 * between us and the disk may already have dropped them, so that readers see the old data again.
 */
static void flush_failed(struct store_sim *s)
{
	u32 i, x;

	for (i = 0; i < s->nr_writes && !s->patient_flush; i++) {
		struct sim_write *w = s->writes[i];
		bool dropped = sim_one_in(4);

		if (!w->done)
			continue;
		w->doubtful = true;
		for (x = 0; dropped && x < w->len_bytes; x += LC_SECTOR) {
			u64 off = w->offset_bytes + x;

			/* Only where nothing newer has been written over it. */
			if (!memcmp(s->now + off, w->data + x, sector_bytes(s, off)))
				put_sector(s, s->now, off, s->media + off);
		}
	}
}

void image_complete(struct sim_io *io)
{
	struct store_sim *s = io->store;

	switch (io->op) {
	case LC_IO_READ:
		s->nr_reads++;
		if (io->result)
			memset(io->buf, 0xee, io->len_bytes);
		break;
	case LC_IO_WRITE:
		s->nr_written++;
		s->nr_zeroed += io->zero;
		io->write->done = ++s->last_done;
		if (io->result && !s->patient_flush)
			io->write->doubtful = true;
		else
			heal(s, io);
		break;
	case LC_IO_FLUSH:
		s->nr_flushes++;
		if (io->result)
			flush_failed(s);
		else
			flush_succeeded(s, io->covers);
		break;
	}
}

static bool is_hole(const struct store_sim *s, u64 offset)
{
	u64 from = offset / s->hole_bytes * s->hole_bytes;

	return !s->touched[offset / LC_BLOCK] || !memcmp(s->now + from, zeros, s->hole_bytes);
}

/* Whatever is zero takes no space. A store need not tell all at once. */
struct lc_extent image_extent(const struct store_sim *s, u64 len_bytes, u64 offset_bytes)
{
	u64 end = offset_bytes + len_bytes, at;
	bool hole;

	if (!s->hole_bytes)
		return (struct lc_extent){.len_bytes = len_bytes};
	hole = is_hole(s, offset_bytes);
	at = offset_bytes;
	do
		at = (at / s->hole_bytes + 1) * s->hole_bytes;
	while (at < end && is_hole(s, at) == hole && !sim_one_in(100));
	return (struct lc_extent){.len_bytes = (at < end ? at : end) - offset_bytes, .hole = hole};
}

void store_sim_rot(struct store_sim *s, u64 offset_bytes, u32 len_bytes)
{
	u32 x;

	for (x = 0; x < len_bytes; x++) {
		u8 flip = (u8)(1u << sim_below(8));

		s->now[offset_bytes + x] ^= flip;
		s->media[offset_bytes + x] ^= flip;
		s->touched[(offset_bytes + x) / LC_BLOCK] = 1;
	}
	s->nr_read_faults++;
	sim_trace("%s: rot, %u bytes at %llu", s->store.name, len_bytes,
		  (unsigned long long)offset_bytes);
}

void store_sim_bad_range(struct store_sim *s, u64 offset_bytes, u64 len_bytes)
{
	if (s->nr_bad == SIM_BAD_RANGES_MAX)
		return;
	s->bad[s->nr_bad].offset_bytes = offset_bytes;
	s->bad[s->nr_bad++].len_bytes = len_bytes;
	s->nr_read_faults++;
}

/* --- the end of a life --- */

enum fate { FATE_LOST, FATE_WHOLE, FATE_PREFIX, FATE_SUBSET };

static const char *const fate_names[] = {"lost", "survived", "prefix survived", "some survived"};

static void survive(struct store_sim *s, const struct sim_write *w, enum fate fate)
{
	u32 n = w->len_bytes / LC_SECTOR, keep = n, unit = s->tear_bytes / LC_SECTOR, i;
	u64 bits = 0;

	if (fate == FATE_PREFIX)
		keep = sim_below(n + 1) / unit * unit;
	for (i = 0; i < keep; i++) {
		u64 off = w->offset_bytes + (u64)i * LC_SECTOR;

		if (fate == FATE_SUBSET) {
			u32 k = i / unit;

			if (i % unit == 0 && k % 64 == 0)
				bits = sim_rand();
			if (!(bits >> (k % 64) & 1))
				continue;
		}
		if (w->number < s->media_number[off / LC_SECTOR])
			continue; /* something newer is certain there */
		put_sector(s, s->now, off, w->data + (size_t)i * LC_SECTOR);
	}
}

/* Decide for each uncertain write, in order of submission, what becomes of it. */
static void draw_fates(u8 *fates, u32 n)
{
	u32 style = sim_below(9), at = n ? sim_below(n + 1) : 0, i;

	for (i = 0; i < n; i++) {
		switch (style) {
		case 0:
			fates[i] = FATE_LOST;
			break;
		case 1:
			fates[i] = FATE_WHOLE;
			break;
		case 2: /* the disk wrote in order */
			fates[i] = i < at ? FATE_WHOLE : i > at ? FATE_LOST : FATE_SUBSET;
			break;
		case 3: /* the newest first */
			fates[i] = i >= at ? FATE_WHOLE : FATE_LOST;
			break;
		case 4: /* all but one */
			fates[i] = i == at ? FATE_LOST : FATE_WHOLE;
			break;
		case 5: /* one alone */
			fates[i] = i == at ? FATE_WHOLE : FATE_LOST;
			break;
		case 6: /* beginnings: headers without their data */
			fates[i] = FATE_PREFIX;
			break;
		default:
			fates[i] = (u8)sim_below(4);
		}
	}
}

static void power_cut(struct store_sim *s)
{
	u32 n = s->nr_writes, i;
	u8 *fates = malloc(n + 1);

	if (!fates)
		abort();
	draw_fates(fates, n);
	for (i = 0; i < n; i++) {
		struct sim_write *w = s->writes[i];
		u64 first = w->offset_bytes, x;

		for (x = first; x < first + w->len_bytes; x += LC_SECTOR)
			put_sector(s, s->now, x, s->media + x);
		sim_trace("%s: power cut: write #%u, %u bytes at %llu, %s%s: %s", s->store.name,
			  w->number, w->len_bytes, (unsigned long long)w->offset_bytes,
			  w->done ? "completed" : "in flight", w->doubtful ? ", doubtful" : "",
			  fate_names[fates[i]]);
	}
	for (i = n; i > 0; i--) { /* in random order */
		u32 k = sim_below(i);
		struct sim_write *w = s->writes[k];

		survive(s, w, (enum fate)fates[k]);
		for (u64 x = w->offset_bytes; x < w->offset_bytes + w->len_bytes; x += LC_BLOCK)
			s->touched[x / LC_BLOCK] = 1;
		s->writes[k] = s->writes[i - 1];
		s->writes[i - 1] = w;
		fates[k] = fates[i - 1];
	}
	/* What survived is on the media now. */
	for (i = 0; i < n; i++) {
		struct sim_write *w = s->writes[i];
		u64 x;

		for (x = w->offset_bytes; x < w->offset_bytes + w->len_bytes; x += LC_SECTOR)
			put_sector(s, s->media, x, s->now + x);
	}
	free_writes(s);
	free(fates);
}

/* In place of a write in flight remain the pieces of it that have taken effect. */
static void keep_pieces(struct store_sim *s, struct sim_io *io)
{
	struct sim_write *whole = io->write;
	u32 i, k;

	for (i = 0; i < io->pieces_done; i++) {
		u32 from = io->cut[io->order[i]], to = io->cut[io->order[i] + 1];
		struct sim_write *w = image_write_begin(s, to - from, io->offset_bytes + from,
							io->zero);

		w->done = ++s->last_done;
		if (!io->zero)
			memcpy(w->data, whole->data + from, to - from);
	}
	for (k = 0; s->writes[k] != whole; k++)
		;
	memmove(&s->writes[k], &s->writes[k + 1], (s->nr_writes - k - 1) * sizeof(s->writes[0]));
	s->nr_writes--;
	free(whole);
}

/* The process died: each write in flight lands, or stays where it got to. */
static void land_or_not(struct store_sim *s, struct sim_io *io)
{
	const struct sim_write *whole = io->write;
	bool lands = sim_one_in(2);
	u32 i;

	if (!io->launched) /* it never left the process */
		lands = false;
	for (i = io->pieces_done; lands && i < io->nr_pieces; i++)
		image_apply(io, io->cut[io->order[i]], io->cut[io->order[i] + 1]);
	if (lands)
		io->pieces_done = io->nr_pieces;
	sim_trace("%s: killed: write #%u, %u bytes at %llu in flight: %s", s->store.name,
		  whole->number, whole->len_bytes, (unsigned long long)whole->offset_bytes,
		  lands		  ? "landed" :
		  io->pieces_done ? "landed in part" :
				    "not landed");
	keep_pieces(s, io);
}

/* --- writes that outlive their connection --- */

static void ghost_fired(struct sim_event *ev)
{
	struct sim_ghost *g = (struct sim_ghost *)((char *)ev - offsetof(struct sim_ghost, event)),
			 **p;
	struct store_sim *s = g->store;
	struct sim_write *w = image_write_begin(s, g->len_bytes, g->offset_bytes, g->zero);
	u32 x;

	if (!g->zero)
		memcpy(w->data, g->data, g->len_bytes);
	for (x = 0; x < g->len_bytes; x += LC_SECTOR)
		put_sector(s, s->now, g->offset_bytes + x, w->data + x);
	w->done = ++s->last_done;
	s->nr_haunted++;
	sim_trace("%s: a lost %s takes effect, %u bytes at %llu", s->store.name,
		  g->zero ? "zero" : "write", g->len_bytes, (unsigned long long)g->offset_bytes);
	for (p = &s->ghosts; *p != g;)
		p = &(*p)->next;
	*p = g->next;
	free(g);
}

static void ghost_born(struct store_sim *s, const struct sim_io *io, u32 from, u32 to, u64 until_ns)
{
	struct sim_ghost *g = calloc(1, sizeof(*g) + (io->zero ? 0 : to - from));
	u64 now = sim_now(), left = until_ns > now + 2 ? until_ns - now - 2 : 0;

	if (!g)
		abort();
	g->store = s;
	g->offset_bytes = io->offset_bytes + from;
	g->len_bytes = to - from;
	g->zero = io->zero;
	if (!io->zero)
		memcpy(g->data, io->buf + from, to - from);
	g->event.fire = ghost_fired;
	g->next = s->ghosts;
	s->ghosts = g;
	/* As late as it can be, rather often. */
	sim_event_arm(&g->event, now + (sim_one_in(3) ? left : sim_rand() % (left + 1)));
}

void image_abandon(struct sim_io *io, u64 until_ns)
{
	struct store_sim *s = io->store;
	bool lives = !sim_one_in(4);
	u32 i;

	for (i = io->pieces_done; lives && i < io->nr_pieces; i++)
		ghost_born(s, io, io->cut[io->order[i]], io->cut[io->order[i] + 1], until_ns);
	sim_trace("%s: lost: write #%u, %u bytes at %llu in flight: %u of %u pieces are there%s",
		  s->store.name, io->write->number, io->len_bytes,
		  (unsigned long long)io->offset_bytes, io->pieces_done, io->nr_pieces,
		  lives ? ", the others may come" : "");
	keep_pieces(s, io);
}

void store_sim_drop_ghosts(struct store_sim *s)
{
	while (s->ghosts) {
		struct sim_ghost *g = s->ghosts;

		s->ghosts = g->next;
		sim_event_cancel(&g->event);
		free(g);
	}
}

/*
 * After a failed flush or write "nothing is known", but it does not stay so for ever: whoever opens
 * the device next flushes it, and what it then reads is what is there. (It cannot know that a flush
 * of its predecessor failed.)
 */
static void end_doubts(struct store_sim *s)
{
	u32 i;

	for (i = 0; i < s->nr_writes; i++) {
		struct sim_write *w = s->writes[i];

		if (w->doubtful && w->zero) { /* it needs data of its own now */
			s->writes[i] = malloc(sizeof(*w) + w->len_bytes);
			if (!s->writes[i])
				abort();
			*s->writes[i] = *w;
			free(w);
			w = s->writes[i];
			w->zero = false;
			w->data = (u8 *)(w + 1);
		}
		if (w->doubtful)
			memcpy(w->data, s->now + w->offset_bytes, w->len_bytes);
		w->doubtful = false;
	}
}

/* Data of a write in flight that never reached the disk may still be there after a power cut. */
static void complete_data(struct sim_io *io)
{
	u32 i;

	if (io->zero)
		return;
	for (i = io->pieces_done; i < io->nr_pieces; i++) {
		u32 from = io->cut[io->order[i]];

		memcpy(io->write->data + from, io->buf + from, io->cut[io->order[i] + 1] - from);
	}
}

static void end_io(struct store_sim *s, enum sim_crash kind)
{
	struct sim_io *io, *next;

	for (io = s->submitted; io; io = next) {
		next = io->next;
		sim_event_cancel(&io->event);
		if (io->op == LC_IO_WRITE && !io->done) {
			if (kind == SIM_KILL)
				land_or_not(s, io);
			else
				complete_data(io);
		}
		free(io);
	}
	s->submitted = NULL;
	store_sim_drop_queues(s);
}

void store_sim_crash(struct store_sim *s, enum sim_crash kind)
{
	end_io(s, kind);
	if (kind == SIM_POWER_CUT)
		power_cut(s);
	else
		end_doubts(s);
}

void store_sim_freeze(struct store_sim *s)
{
	end_io(s, SIM_POWER_CUT);
}

void store_sim_settle(struct store_sim *s)
{
	u64 b;

	for (b = 0; b < s->image_bytes / LC_BLOCK; b++)
		if (s->touched[b])
			memcpy(s->media + b * LC_BLOCK, s->now + b * LC_BLOCK, LC_BLOCK);
	free_writes(s);
}
