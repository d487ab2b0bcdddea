/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle.c - see oracle.h. */
#include <string.h>

#include "content.h"
#include "oracle.h"
#include "oracle_sector.h"
#include "rt_sim.h"

#define UNREAD UINT32_MAX

static struct {
	bool errors_allowed, loss_allowed;
	unsigned nr_volumes;
	u32 nr_sectors[ORACLE_VOLUMES_MAX];
	u32 seen[ORACLE_VOLUMES_MAX][ORACLE_SECTORS_MAX]; /* the version that verification read */
} o;

static u32 parse(const u8 *buf, unsigned volume, u32 sector, const char *where)
{
	return content_parse(buf, volume, sector, versions_nr(), where);
}

/* A read while nothing else is in progress. */
static struct read_time now(void)
{
	return (struct read_time){oracle_life(), oracle_now(), oracle_now()};
}

static void judge(unsigned volume, u32 sector, u32 version, const struct read_time *r,
		  const char *where)
{
	if (!o.loss_allowed)
		sector_judge(volume, sector, version, r, where);
}

/* --- a new history --- */

void oracle_begin(u64 seed, unsigned nr_volumes, const u32 *nr_sectors, bool preset)
{
	unsigned v;
	u32 i;

	content_begin(seed);
	o.errors_allowed = o.loss_allowed = false;
	o.nr_volumes = nr_volumes;
	oracle_lives_begin();
	sectors_begin(nr_volumes, nr_sectors, preset);
	for (v = 0; v < nr_volumes; v++) {
		o.nr_sectors[v] = nr_sectors[v];
		for (i = 0; i < nr_sectors[v]; i++)
			o.seen[v][i] = UNREAD;
	}
}

void oracle_allow_errors(bool allow)
{
	o.errors_allowed = allow;
}

void oracle_allow_loss(void)
{
	o.loss_allowed = true;
}

void oracle_preset_sector(unsigned volume, u32 sector, u8 *buf)
{
	content_fill(buf, volume, sector, 0);
}

/* --- clients --- */

/* Of OP the caller says what it does; this says who does it, and when: this fiber, now. */
static u32 submit(struct op op)
{
	op.submit = oracle_tick();
	op.ack = ORACLE_NEVER;
	op.submit_ns = sim_now();
	op.life = oracle_life();
	op.fiber = sim_fiber_name(sim_self());
	op.promise = oracle_promise(op.submit);
	return version_submit(&op);
}

u32 oracle_write_submit(unsigned volume, u32 sector, u32 nr, bool fua, u8 *buf)
{
	u32 v = submit((struct op){.volume = volume, .sector = sector, .nr = nr, .fua = fua}), i;

	for (i = 0; i < nr; i++)
		content_fill(buf + (size_t)i * LC_SECTOR, volume, sector + i, v);
	sim_trace("write v%u submit, sectors %u+%u of %u%s (tick %u)", v, sector, nr, volume,
		  fua ? ", FUA" : "", version_op(v)->submit);
	return v;
}

u32 oracle_zero_submit(unsigned volume, u32 sector, u32 nr, bool fua, bool trim)
{
	u32 v = submit((struct op){.volume = volume,
				   .sector = sector,
				   .nr = nr,
				   .fua = fua,
				   .zero = true,
				   .trim = trim});

	sim_trace("%s v%u submit, sectors %u+%u of %u%s (tick %u)", trim ? "trim" : "zero", v,
		  sector, nr, volume, fua ? ", FUA" : "", version_op(v)->submit);
	return v;
}

void oracle_write_done(u32 version, int error)
{
	const struct op *op = version_op(version);
	u32 t = oracle_tick();

	sim_trace("%s v%u done: %d (tick %u)",
		  op->trim ? "trim" :
		  op->zero ? "zero" :
			     "write",
		  version, error, t);
	if (error) {
		version_failed(version);
		if (!o.errors_allowed)
			sim_fail("%s v%u of %u sectors at %u failed with %d, but no store did",
				 op->zero ? "zero" : "write", version, op->nr, op->sector, error);
		return;
	}
	version_acknowledged(version, t);
	if (op->fua) /* by rule 4, so is all that was acknowledged before */
		oracle_kept(op->promise);
}

u32 oracle_read_submit(u8 *buf, u32 nr)
{
	static const u64 rubbish = 0x7375706572736564ull;
	u32 i;

	for (i = 0; i < nr; i++) {
		memcpy(buf + (size_t)i * LC_SECTOR, &rubbish, 8);
		memcpy(buf + (size_t)i * LC_SECTOR + 504, &rubbish, 8);
	}
	return oracle_read_begin();
}

void oracle_read_done(u32 ticket, unsigned volume, u32 sector, u32 nr, const u8 *buf, int error)
{
	struct read_time r = {oracle_life(), oracle_read_end(ticket), oracle_tick()};
	u32 i;

	if (error) {
		if (!o.errors_allowed)
			sim_fail("a read of %u sectors at %u failed with %d, but no store did", nr,
				 sector, error);
		return;
	}
	for (i = 0; i < nr; i++) {
		u32 v = parse(buf + (size_t)i * LC_SECTOR, volume, sector + i, "read");

		judge(volume, sector + i, v, &r, "read");
	}
	sim_trace("read done, sectors %u+%u of %u (ticks %u-%u), the first holds v%d", sector, nr,
		  volume, r.start, r.end, (int)parse(buf, volume, sector, "read"));
}

void oracle_hole_done(u32 ticket, unsigned volume, u32 sector, u32 nr)
{
	struct read_time r = {oracle_life(), oracle_read_end(ticket), oracle_tick()};
	u32 i;

	for (i = 0; i < nr; i++)
		judge(volume, sector + i, CONTENT_ZEROS, &r, "in a hole");
	if (nr)
		sim_trace("hole, sectors %u+%u of %u (ticks %u-%u)", sector, nr, volume, r.start,
			  r.end);
}

/* --- verification --- */

void oracle_verify_read(unsigned volume, u32 sector, u32 nr, const u8 *buf, int error)
{
	struct read_time r = now();
	u32 i;

	if (error) {
		if (!o.errors_allowed)
			sim_fail("after recovery a read of %u sectors at %u failed with %d, but no "
				 "store did",
				 nr, sector, error);
		return;
	}
	for (i = 0; i < nr; i++) {
		u32 *seen = &o.seen[volume][sector + i];
		u32 v = parse(buf + (size_t)i * LC_SECTOR, volume, sector + i, "read after recovery");

		if (o.loss_allowed)
			continue;
		if (v != CONTENT_ZEROS)
			sector_found(volume, sector + i, v, &r, "after recovery");
		if (*seen != UNREAD && *seen != v)
			sector_violated("two reads after recovery differ", volume, sector + i, v,
					"after recovery");
		*seen = v;
	}
}

/* What do the zeros that verification read say about what survived? Returns whether that was news. */
static bool learn_from_seen_zeros(const struct read_time *r)
{
	bool news = false;
	unsigned volume;
	u32 x;

	for (volume = 0; volume < o.nr_volumes; volume++)
		for (x = 0; x < o.nr_sectors[volume]; x++)
			if (o.seen[volume][x] == CONTENT_ZEROS)
				news |= sector_found(volume, x, CONTENT_ZEROS, r, "after recovery");
	return news;
}

void oracle_verify_judge(void)
{
	struct read_time r = now();
	unsigned volume;
	u32 x;

	while (learn_from_seen_zeros(&r)) /* what is visible may exclude other origins of zeros */
		;
	for (volume = 0; volume < o.nr_volumes; volume++) {
		for (x = 0; x < o.nr_sectors[volume]; x++) {
			u32 *seen = &o.seen[volume][x];

			if (*seen == UNREAD)
				continue;
			judge(volume, x, *seen, &r, "after recovery");
			*seen = UNREAD;
		}
	}
}

void oracle_check_image(unsigned volume, u32 sector, u32 nr, const u8 *image, const char *what)
{
	struct read_time r;
	u32 i;

	oracle_tick();
	r = now();
	for (i = 0; i < nr; i++) {
		u32 v = parse(image + (size_t)i * LC_SECTOR, volume, sector + i, what);

		judge(volume, sector + i, v, &r, what);
	}
}

/* Could a read at R find IMAGE? */
static bool may_hold(unsigned volume, const u8 *image, const struct read_time *r)
{
	bool may = true;
	u32 x;

	for (x = 0; x < o.nr_sectors[volume] && may; x++) {
		u32 v = parse(image + (size_t)x * LC_SECTOR, volume, x, NULL);

		may = sector_may_hold(volume, x, v, r);
	}
	return may;
}

bool oracle_image_current(unsigned volume, const u8 *image)
{
	struct read_time r = now();

	return may_hold(volume, image, &r);
}

/* --- between lives --- */

bool oracle_image_suffices(unsigned volume, const u8 *image)
{
	struct read_time r = now();

	r.life++; /* look at it from the next one */
	return may_hold(volume, image, &r);
}

bool oracle_untouched(unsigned volume, u32 sector, u32 nr)
{
	for (; nr; nr--, sector++)
		if (sector_touched(volume, sector))
			return false;
	return true;
}

void oracle_foreign(unsigned volume, u32 sector, u32 nr, u8 *buf)
{
	/* Of no life: no log knows of it. */
	struct op op = {.volume = volume,
			.sector = sector,
			.nr = nr,
			.submit = oracle_now(),
			.ack = oracle_now(),
			.fiber = "somebody else"};
	u32 v = version_foreign(&op), i;

	for (i = 0; i < nr; i++)
		content_fill(buf + (size_t)i * LC_SECTOR, volume, sector + i, v);
}
