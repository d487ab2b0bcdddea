/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle_bytes.c - see oracle_bytes.h. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "oracle_bytes.h"
#include "oracle_lives.h"
#include "rt_sim.h"

#define OPS_MAX 64u
#define REGION_SECTORS (BYTES_REGION_MAX / LC_SECTOR)

struct byte_op {
	u32 id; /* decides its bytes */
	u32 at, len;
	u32 submit, ack;
	bool fua, zero;
	struct oracle_promise promise;
};

static struct region {
	u64 offset;
	u32 len;
	bool settled, broken, loss_allowed;
	u8 life; /* of the operations */
	u32 last_id, nr_ops;
	struct byte_op ops[OPS_MAX]; /* not known to be durable */
	u8 base[BYTES_REGION_MAX];   /* durable */
	u8 now[BYTES_REGION_MAX];    /* after all operations */
} regions[ORACLE_VOLUMES_MAX];

void bytes_begin(unsigned volume, u64 offset_bytes, u32 len_bytes, const u8 *initial)
{
	struct region *r = &regions[volume];

	assert(len_bytes <= BYTES_REGION_MAX && offset_bytes % LC_SECTOR == 0);
	r->offset = offset_bytes;
	r->len = len_bytes;
	r->settled = r->broken = r->loss_allowed = false;
	r->life = 0;
	r->last_id = r->nr_ops = 0;
	memcpy(r->base, initial, len_bytes);
	memcpy(r->now, initial, len_bytes);
}

void bytes_allow_loss(void)
{
	struct region *r;

	for (r = regions; r < regions + ORACLE_VOLUMES_MAX; r++)
		r->loss_allowed = true;
}

u64 bytes_offset(unsigned volume)
{
	return regions[volume].offset;
}

u32 bytes_len(unsigned volume)
{
	return regions[volume].len;
}

bool bytes_settled(unsigned volume)
{
	return regions[volume].settled;
}

bool bytes_may_write(unsigned volume)
{
	const struct region *r = &regions[volume];

	return r->settled && !r->broken && r->nr_ops < OPS_MAX;
}

static u8 byte_of(u32 id, u32 at)
{
	return (u8)(id * 37 + at * 13 + (at >> 8) * 7 + 1);
}

static void put(u8 *image, const struct byte_op *op, u32 from, u32 to)
{
	u32 i;

	if (from < op->at)
		from = op->at;
	if (to > op->at + op->len)
		to = op->at + op->len;
	for (i = from; i < to; i++)
		image[i] = op->zero ? 0 : byte_of(op->id, i);
}

static struct byte_op *submit(unsigned volume, u32 at, u32 len, bool fua)
{
	struct region *r = &regions[volume];
	struct byte_op *op = &r->ops[r->nr_ops++];

	assert(r->settled && !r->broken && r->nr_ops <= OPS_MAX && at + len <= r->len);
	*op = (struct byte_op){.id = ++r->last_id,
			       .at = at,
			       .len = len,
			       .fua = fua,
			       .submit = oracle_tick(),
			       .ack = ORACLE_NEVER};
	r->life = oracle_life();
	op->promise = oracle_promise(op->submit);
	return op;
}

void bytes_write_submit(unsigned volume, u32 at, u32 len, bool fua, u8 *buf)
{
	struct byte_op *op = submit(volume, at, len, fua);
	u32 i;

	for (i = 0; i < len; i++)
		buf[i] = byte_of(op->id, at + i);
	sim_trace("byte write %u submit, %u at %u of the region of %u%s (tick %u)", op->id, len, at,
		  volume, fua ? ", FUA" : "", op->submit);
}

void bytes_zero_submit(unsigned volume, u32 at, u32 len, bool fua)
{
	struct byte_op *op = submit(volume, at, len, fua);

	op->zero = true;
	sim_trace("byte zero %u submit, %u at %u of the region of %u%s (tick %u)", op->id, len, at,
		  volume, fua ? ", FUA" : "", op->submit);
}

void bytes_write_done(unsigned volume, int error)
{
	struct region *r = &regions[volume];
	struct byte_op *op = &r->ops[r->nr_ops - 1];
	struct oracle_promise p;
	u32 t = oracle_tick();

	sim_trace("byte write %u done: %d (tick %u)", op->id, error, t);
	if (error) {
		r->broken = true; /* what is there now is open until the next life */
		return;
	}
	op->ack = t;
	put(r->now, op, 0, r->len);
	if (!op->fua)
		return;
	p = op->promise;
	oracle_kept(p);
	if (p.tick && !p.loose) /* all operations here are one client's: with this one all are durable */
		bytes_durable(ORACLE_ALL_VOLUMES, p.tick == op->submit ? t + 1 : p.tick);
}

void bytes_durable(unsigned volume, u32 tick)
{
	struct region *r;
	u32 n;

	for (r = regions; r < regions + ORACLE_VOLUMES_MAX; r++) {
		if (!r->settled || r->life != oracle_life() ||
		    (volume != ORACLE_ALL_VOLUMES && r != &regions[volume]))
			continue;
		for (n = 0; n < r->nr_ops && r->ops[n].ack < tick; n++)
			put(r->base, &r->ops[n], 0, r->len);
		memmove(r->ops, r->ops + n, (r->nr_ops - n) * sizeof(r->ops[0]));
		r->nr_ops -= n;
	}
}

bool bytes_current(unsigned volume, const u8 *content)
{
	const struct region *r = &regions[volume];

	return r->broken || !r->settled || !memcmp(content, r->now, r->len);
}

static void list_ops(const struct region *r)
{
	u32 i;

	fprintf(stderr, "operations since the last that is known to be durable (life %u):\n",
		r->life);
	for (i = 0; i < r->nr_ops; i++) {
		const struct byte_op *op = &r->ops[i];

		fprintf(stderr, "  %u: %s%u bytes at %u%s, submitted at tick %u, ", i + 1,
			op->zero ? "zero, " : "", op->len, op->at, op->fua ? " FUA" : "", op->submit);
		if (op->ack == ORACLE_NEVER)
			fprintf(stderr, "not acknowledged\n");
		else
			fprintf(stderr, "acknowledged at %u\n", op->ack);
	}
}

void bytes_check(unsigned volume, u32 at, u32 len, const u8 *buf, const char *what)
{
	const struct region *r = &regions[volume];
	u32 i;

	if (r->broken || !r->settled || r->loss_allowed)
		return;
	for (i = 0; i < len && buf[i] == r->now[at + i]; i++)
		;
	if (i == len)
		return;
	fprintf(stderr,
		"\noracle: byte %llu of volume %u (%u of its byte region at %llu), %s at tick %u: "
		"found %02x, expected %02x\n",
		(unsigned long long)(r->offset + at + i), volume, at + i,
		(unsigned long long)r->offset, what, oracle_tick(), buf[i], r->now[at + i]);
	list_ops(r);
	sim_fail("oracle: wrong bytes, %s", what);
}

void bytes_life_ended(void)
{
	struct region *r;

	for (r = regions; r < regions + ORACLE_VOLUMES_MAX; r++)
		r->settled = false;
}

/* match[j]: sector X of CONTENT is as it was after the first j operations. */
static void match_sector(const struct region *r, u32 x, const u8 *content, bool *match)
{
	u8 image[BYTES_REGION_MAX];
	u32 from = x * LC_SECTOR, to = from + LC_SECTOR < r->len ? from + LC_SECTOR : r->len, j;

	memcpy(image + from, r->base + from, to - from);
	match[0] = !memcmp(image + from, content + from, to - from);
	for (j = 0; j < r->nr_ops; j++) {
		const struct byte_op *op = &r->ops[j];

		match[j + 1] = match[j];
		if (op->at >= to || op->at + op->len <= from)
			continue;
		put(image, op, from, to);
		match[j + 1] = !memcmp(image + from, content + from, to - from);
	}
}

static bool match[REGION_SECTORS][OPS_MAX + 1];

/* Sector X is as after K operations, or K + 1. */
static bool as_after(const struct region *r, u32 x, u32 k)
{
	return match[x][k] || (k < r->nr_ops && match[x][k + 1]);
}

/* The smallest k of all sectors together that CONTENT is possible with; nr_ops + 1 if there is none. */
static u32 find_prefix(unsigned volume, const u8 *content, u32 *lowest)
{
	const struct region *r = &regions[volume];
	u32 sectors = (r->len + LC_SECTOR - 1) / LC_SECTOR, x, j, k;

	for (x = 0; x < sectors; x++)
		match_sector(r, x, content, match[x]);
	*lowest = 0;
	for (j = 0;
	     j < r->nr_ops && oracle_guaranteed(r->life, volume, r->ops[j].submit, r->ops[j].ack);
	     j++)
		*lowest = j + 1;
	if (!oracle_has_log(r->life)) {
		for (x = 0; x < sectors; x++) {
			for (j = *lowest; j <= r->nr_ops && !match[x][j]; j++)
				;
			if (j > r->nr_ops)
				return j;
		}
		return *lowest;
	}
	for (k = *lowest; k <= r->nr_ops; k++) {
		for (x = 0; x < sectors && as_after(r, x, k); x++)
			;
		if (x == sectors)
			break;
	}
	return k;
}

static _Noreturn void say_no_prefix(unsigned volume, u32 lowest)
{
	const struct region *r = &regions[volume];
	u32 sectors = (r->len + LC_SECTOR - 1) / LC_SECTOR, x, j;
	bool any = true;

	fprintf(stderr,
		"\noracle: byte region of volume %u at %llu: not the result of a prefix of "
		"the operations that contains the first %u\n",
		volume, (unsigned long long)r->offset, lowest);
	for (x = 0; x < sectors; x++) {
		bool some = false;

		fprintf(stderr, "  sector %u is as after operations", x);
		for (j = 0; j <= r->nr_ops; j++) {
			some |= match[x][j];
			if (match[x][j])
				fprintf(stderr, " %u", j);
		}
		fprintf(stderr, "%s\n", some ? "" : ": none");
		any &= some;
	}
	list_ops(r);
	if (!any)
		sim_fail("oracle: a torn, stale or foreign sector in the byte region");
	sim_fail("oracle: not a prefix (I9), or a durable write is gone (I2), in the byte region");
}

void bytes_judge(unsigned volume, const u8 *content)
{
	struct region *r = &regions[volume];
	u32 lowest, k = find_prefix(volume, content, &lowest);

	if (k > r->nr_ops && !r->loss_allowed)
		say_no_prefix(volume, lowest);
	if (k > 0 && k <= r->nr_ops)
		oracle_visible(r->life, r->ops[k - 1].submit);
	bytes_foreign(volume, content);
	r->settled = true;
}

bool bytes_suffice(unsigned volume, const u8 *content)
{
	const struct region *r = &regions[volume];
	u32 lowest;

	return r->broken || find_prefix(volume, content, &lowest) <= r->nr_ops;
}

void bytes_foreign(unsigned volume, const u8 *content)
{
	struct region *r = &regions[volume];

	memcpy(r->base, content, r->len);
	memcpy(r->now, content, r->len);
	r->nr_ops = 0;
	r->broken = false;
}
