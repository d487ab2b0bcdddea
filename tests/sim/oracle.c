/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * oracle.c - the judge of sectors; oracle.h says by which rules.
 *
 * Each sector has a list of nodes, one for each version that it may hold now or after a crash.
 * Nodes of the present life are `new`, those of earlier lives are candidates until a read decides
 * between them. A version that is not on the list has been excluded for ever: that is how stale
 * data from long ago is recognised.
 *
 * A node is dropped when its sector has a durable version after it, and no read in progress is old
 * enough to return it; otherwise lists would grow with the history.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "rt_sim.h"

#define OPS_MAX (1u << 20)
#define NODES_MAX (1u << 21)
#define READS_MAX 64u
#define WORDS (LC_SECTOR / 8)
#define SECTOR_MAGIC 0x6c6f676361636865ull /* "logcache" */
#define UNREAD UINT32_MAX

/* A write. Version 0 is the initial content. */
struct op {
	u32 volume, sector, nr;
	u32 submit, ack; /* ticks; ack ORACLE_NEVER: not (yet) acknowledged */
	u64 submit_ns, ack_ns;
	const char *fiber;
	u8 life;
	bool fua, failed;
};

struct node {
	u32 version;
	u32 first_end, last_start;
	u32 next;     /* 0: end of the list */
	u8 life;      /* raised to the present one when a read has decided for it */
	bool settled; /* survived a crash: durable */
};

struct sector {
	u32 head;
	u32 length; /* of the list at the last pruning */
	u32 seen;   /* the version that verification read, UNREAD if none */
};

static struct {
	u64 seed;
	bool errors_allowed, loss_allowed, preset;
	unsigned nr_volumes;
	u32 nr_sectors[ORACLE_VOLUMES_MAX];
	struct sector *sectors[ORACLE_VOLUMES_MAX];
	struct op *ops;
	u32 nr_ops;
	struct node *nodes;
	u32 nr_nodes, free_node;
	u32 tick;
	u8 life;
	u8 working_life;	       /* the last one with writes */
	u32 durable[ORACLE_LIVES_MAX]; /* acknowledged before this tick: durable */
	u32 visible[ORACLE_LIVES_MAX]; /* rule 4's T */
	u32 reads[READS_MAX];	       /* start ticks of reads in progress, 0: free */
	u64 table[WORDS];
} o;

/* --- content of a sector --- */

static u64 mix(u64 a, u64 b)
{
	u64 z = (a ^ (b * 0x9e3779b97f4a7c15ull)) * 0xbf58476d1ce4e5b9ull;

	return z ^ (z >> 29);
}

static void sector_fill(u8 *buf, unsigned volume, u32 sector, u32 version)
{
	u64 w[WORDS], h;
	u32 i;

	w[0] = SECTOR_MAGIC;
	w[1] = (u64)volume << 32 | sector;
	w[2] = version;
	w[3] = o.seed;
	h = mix(mix(mix(w[1], w[2]), w[3]), 1);
	for (i = 4; i < WORDS; i++)
		w[i] = h ^ o.table[i];
	memcpy(buf, w, sizeof(w));
}

static _Noreturn void not_a_version(const char *where, unsigned volume, u32 sector, const u64 *w,
				    const char *why)
{
	fprintf(stderr,
		"\noracle: sector %u of volume %u (block %u.%u), %s: %s\n"
		"  words: %016llx %016llx %016llx %016llx %016llx .. %016llx\n",
		sector, volume, sector / 8, sector % 8, where, why, (unsigned long long)w[0],
		(unsigned long long)w[1], (unsigned long long)w[2], (unsigned long long)w[3],
		(unsigned long long)w[4], (unsigned long long)w[WORDS - 1]);
	if (w[0] == SECTOR_MAGIC)
		fprintf(stderr,
			"  it begins as version %llu of sector %u of volume %u, seed %llx (ours "
			"%llx)\n",
			(unsigned long long)w[2], (u32)w[1], (u32)(w[1] >> 32),
			(unsigned long long)w[3], (unsigned long long)o.seed);
	sim_fail("content: %s", why);
}

/* Which version is this? Fails the history if it is none, or somebody else's. */
static u32 sector_parse(const u8 *buf, unsigned volume, u32 sector, const char *where)
{
	u64 w[WORDS], h, bad = 0;
	u32 i;

	memcpy(w, buf, sizeof(w));
	if (!w[0] && !o.preset) {
		for (i = 0; i < WORDS; i++)
			bad |= w[i];
		if (bad)
			not_a_version(where, volume, sector, w, "zeros, but not all of it");
		return 0;
	}
	if (w[0] != SECTOR_MAGIC)
		not_a_version(where, volume, sector, w,
			      w[0] ? "not the beginning of a sector that was written" :
				     "zeros where there never were any");
	h = mix(mix(mix(w[1], w[2]), w[3]), 1);
	for (i = 4; i < WORDS; i++)
		bad |= w[i] ^ h ^ o.table[i];
	if (bad)
		not_a_version(where, volume, sector, w, "a torn sector: a mixture of versions");
	if (w[1] != ((u64)volume << 32 | sector))
		not_a_version(where, volume, sector, w, "the content of another sector");
	if (w[3] != o.seed || w[2] >= o.nr_ops)
		not_a_version(where, volume, sector, w, "content of another history");
	return (u32)w[2];
}

void oracle_preset_sector(unsigned volume, u32 sector, u8 *buf)
{
	sector_fill(buf, volume, sector, 0);
}

/* --- lists --- */

static u32 node_new(u32 version)
{
	u32 n = o.free_node;

	if (n) {
		o.free_node = o.nodes[n].next;
	} else {
		n = o.nr_nodes++;
		if (n >= NODES_MAX)
			sim_fail("the oracle ran out of nodes: the history is too long");
	}
	o.nodes[n] = (struct node){.version = version, .life = o.ops[version].life};
	return n;
}

static void node_free(u32 n)
{
	o.nodes[n].next = o.free_node;
	o.free_node = n;
}

static bool durable(const struct node *n)
{
	const struct op *op = &o.ops[n->version];

	return n->settled || op->ack < o.durable[op->life] || (op->fua && op->ack != ORACLE_NEVER);
}

/* Is A certainly older than B? Lives do not overlap. */
static bool before(const struct node *a, const struct node *b)
{
	if (a->life != b->life)
		return a->life < b->life;
	return a->first_end < b->last_start;
}

/* No read in progress, and none to come, started before this tick. */
static u32 oldest_read(void)
{
	u32 i, t = o.tick;

	for (i = 0; i < READS_MAX; i++)
		if (o.reads[i] && o.reads[i] < t)
			t = o.reads[i];
	return t;
}

static void prune(struct sector *s)
{
	u32 oldest = oldest_read(), n, *p, last = 0, kept = 0;

	for (n = s->head; n; n = o.nodes[n].next)
		if (o.nodes[n].life == o.life && durable(&o.nodes[n]) &&
		    o.nodes[n].first_end < oldest &&
		    (!last || o.nodes[last].last_start < o.nodes[n].last_start))
			last = n;
	for (p = &s->head; (n = *p);) {
		if (last && n != last && before(&o.nodes[n], &o.nodes[last])) {
			*p = o.nodes[n].next;
			node_free(n);
		} else {
			p = &o.nodes[n].next;
			kept++;
		}
	}
	s->length = kept;
}

static void describe(const struct node *n)
{
	const struct op *op = &o.ops[n->version];

	fprintf(stderr, "  version %u", n->version);
	if (!n->version) {
		fprintf(stderr, " (initial content)");
	} else {
		fprintf(stderr, ": %u sectors at %u%s by %s, life %u, submitted at tick %u (%.6f ms)",
			op->nr, op->sector, op->fua ? " FUA" : "", op->fiber, op->life, op->submit,
			(double)op->submit_ns / 1e6);
		if (op->ack != ORACLE_NEVER)
			fprintf(stderr, ", acknowledged at %u (%.6f ms)", op->ack,
				(double)op->ack_ns / 1e6);
		else
			fprintf(stderr, ", %s", op->failed ? "failed" : "never acknowledged");
	}
	if (n->first_end != op->ack || n->last_start != op->submit)
		fprintf(stderr, "; reads that returned it: first end %u, last start %u",
			n->first_end, n->last_start);
	fprintf(stderr, "%s\n", n->settled ? "; survived a crash" : durable(n) ? "; durable" : "");
}

static _Noreturn void violated(const char *rule, unsigned volume, u32 sector, u32 got,
			       const struct node *other, const char *where)
{
	const struct sector *s = &o.sectors[volume][sector];
	struct node gone = {.version = got,
			    .first_end = o.ops[got].ack,
			    .last_start = o.ops[got].submit};
	u32 n;

	fprintf(stderr,
		"\noracle: %s\n  sector %u of volume %u (block %u.%u), %s at tick %u\nfound:\n",
		rule, sector, volume, sector / 8, sector % 8, where, o.tick);
	for (n = s->head; n && o.nodes[n].version != got; n = o.nodes[n].next)
		;
	describe(n ? &o.nodes[n] : &gone);
	if (other) {
		fprintf(stderr, "but:\n");
		describe(other);
	}
	fprintf(stderr, "possible here%s:\n", s->head ? "" : ": nothing");
	for (n = s->head; n; n = o.nodes[n].next)
		describe(&o.nodes[n]);
	fprintf(stderr,
		"life %u; of life %u everything acknowledged before tick %u is durable, "
		"the newest visible was submitted at %u\n",
		o.life, o.working_life, o.durable[o.working_life], o.visible[o.working_life]);
	sim_fail("oracle: %s", rule);
}

/* --- deciding between candidates (rules 2 to 5) --- */

static u32 guaranteed(u8 life)
{
	return o.visible[life] > o.durable[life] ? o.visible[life] : o.durable[life];
}

static u32 find(const struct sector *s, u32 version)
{
	u32 n;

	for (n = s->head; n && o.nodes[n].version != version; n = o.nodes[n].next)
		;
	return n;
}

/*
 * A read returned candidate FOUND of an earlier life: may it have survived? Then nothing else did.
 */
static void settle(unsigned volume, u32 sector, u32 found, const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	u32 n, *p;

	for (n = s->head; n; n = o.nodes[n].next) {
		const struct node *a = &o.nodes[n];
		const struct op *op = &o.ops[a->version];

		if (n == found || a->life == o.life || !before(&o.nodes[found], a))
			continue;
		if (durable(a))
			violated("lost: a durable write is gone (I2)", volume, sector,
				 o.nodes[found].version, a, where);
		if (op->ack < guaranteed(op->life))
			violated("not a prefix: a write acknowledged before a visible one was "
				 "submitted is gone (I9)",
				 volume, sector, o.nodes[found].version, a, where);
	}
	for (p = &s->head; (n = *p);) {
		if (n != found && o.nodes[n].life != o.life) {
			*p = o.nodes[n].next;
			node_free(n);
		} else {
			p = &o.nodes[n].next;
		}
	}
	o.nodes[found].settled = true;
	o.nodes[found].life = o.life;
	o.nodes[found].first_end = o.nodes[found].last_start = 0;
}

/* --- clients --- */

u32 oracle_tick(void)
{
	return ++o.tick;
}

u32 oracle_write_submit(unsigned volume, u32 sector, u32 nr, bool fua, u8 *buf)
{
	u32 v = o.nr_ops++, i, t = oracle_tick();

	if (v >= OPS_MAX)
		sim_fail("the oracle ran out of operations: the history is too long");
	o.working_life = o.life;
	o.ops[v] = (struct op){.volume = volume,
			       .sector = sector,
			       .nr = nr,
			       .submit = t,
			       .ack = ORACLE_NEVER,
			       .submit_ns = sim_now(),
			       .life = o.life,
			       .fiber = sim_fiber_name(sim_self()),
			       .fua = fua};
	for (i = 0; i < nr; i++) {
		struct sector *s = &o.sectors[volume][sector + i];
		u32 n = node_new(v);

		o.nodes[n].first_end = ORACLE_NEVER;
		o.nodes[n].last_start = t;
		o.nodes[n].next = s->head;
		s->head = n;
		if (++s->length % 8 == 0)
			prune(s);
		sector_fill(buf + (size_t)i * LC_SECTOR, volume, sector + i, v);
	}
	sim_trace("write v%u submit, sectors %u+%u of %u%s (tick %u)", v, sector, nr, volume,
		  fua ? ", FUA" : "", t);
	return v;
}

void oracle_write_done(u32 version, int error)
{
	struct op *op = &o.ops[version];
	u32 t = oracle_tick(), i, n;

	sim_trace("write v%u done: %d (tick %u)", version, error, t);
	if (error) {
		/* Any sector of it may be there, now or later, until something newer is. */
		op->failed = true;
		if (!o.errors_allowed)
			sim_fail("write v%u of %u sectors at %u failed with %d, but no store did",
				 version, op->nr, op->sector, error);
		return;
	}
	op->ack = t;
	op->ack_ns = sim_now();
	if (op->fua) /* by the prefix rule, so is all that was acknowledged before it began */
		oracle_durable(op->submit);
	for (i = 0; i < op->nr; i++) {
		n = find(&o.sectors[op->volume][op->sector + i], version);
		/* A durable newer one, seen by a read, may have pushed it off the list. */
		if (n && o.nodes[n].first_end > t)
			o.nodes[n].first_end = t;
	}
}

u32 oracle_read_submit(u8 *buf, u32 nr)
{
	static const u64 rubbish = 0x7375706572736564ull;
	u32 i;

	for (i = 0; i < nr; i++) {
		memcpy(buf + (size_t)i * LC_SECTOR, &rubbish, 8);
		memcpy(buf + (size_t)i * LC_SECTOR + 504, &rubbish, 8);
	}
	for (i = 0; i < READS_MAX && o.reads[i]; i++)
		;
	if (i == READS_MAX)
		sim_fail("the oracle ran out of reads in progress");
	o.reads[i] = oracle_tick();
	return i;
}

/* A read from START to END returned VERSION. */
static void judge_read(unsigned volume, u32 sector, u32 version, u32 start, u32 end, const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	u32 n = find(s, version), m;
	struct node *v = &o.nodes[n];

	if (o.loss_allowed)
		return;
	if (!n)
		violated("stale: a version that was replaced or lost long ago came back", volume,
			 sector, version, NULL, where);
	if (v->life != o.life) {
		oracle_visible(o.ops[version].life, o.ops[version].submit);
		settle(volume, sector, n, where);
	}
	if (v->first_end > end)
		v->first_end = end;
	if (v->last_start < start)
		v->last_start = start;
	for (m = s->head; m; m = o.nodes[m].next) {
		struct node *u = &o.nodes[m];

		if (m != n && u->life == o.life && before(v, u) && before(u, v))
			violated("stale: a read went back in time, or missed an acknowledged write",
				 volume, sector, version, u, where);
	}
}

void oracle_read_done(u32 ticket, unsigned volume, u32 sector, u32 nr, const u8 *buf, int error)
{
	u32 start = o.reads[ticket], end = oracle_tick(), i;

	o.reads[ticket] = 0;
	if (error) {
		if (!o.errors_allowed)
			sim_fail("a read of %u sectors at %u failed with %d, but no store did", nr,
				 sector, error);
		return;
	}
	for (i = 0; i < nr; i++) {
		u32 v = sector_parse(buf + (size_t)i * LC_SECTOR, volume, sector + i, "read");

		judge_read(volume, sector + i, v, start, end, "read");
	}
	sim_trace("read done, sectors %u+%u of %u (ticks %u-%u), the first holds v%u", sector, nr,
		  volume, start, end, sector_parse(buf, volume, sector, "read"));
}

void oracle_durable(u32 tick)
{
	if (o.durable[o.life] < tick)
		o.durable[o.life] = tick;
}

/* --- lives --- */

void oracle_opened(void)
{
	if (++o.life == ORACLE_LIVES_MAX)
		sim_fail("the oracle ran out of lives");
	memset(o.reads, 0, sizeof(o.reads));
	oracle_tick();
}

void oracle_crashed(void)
{
	oracle_tick();
	memset(o.reads, 0, sizeof(o.reads));
}

void oracle_closed(void)
{
	u32 t = oracle_tick();

	if (o.life)
		o.durable[o.life] = t;
}

void oracle_verify_read(unsigned volume, u32 sector, u32 nr, const u8 *buf, int error)
{
	u32 i;

	if (error) {
		if (!o.errors_allowed)
			sim_fail("after recovery a read of %u sectors at %u failed with %d, but no "
				 "store did",
				 nr, sector, error);
		return;
	}
	for (i = 0; i < nr; i++) {
		struct sector *s = &o.sectors[volume][sector + i];
		u32 v = sector_parse(buf + (size_t)i * LC_SECTOR, volume, sector + i,
				     "read after recovery");
		const struct op *op = &o.ops[v];

		if (o.loss_allowed)
			continue;
		if (!find(s, v))
			violated("stale: a version that was replaced or lost long ago came back",
				 volume, sector + i, v, NULL, "after recovery");
		if (s->seen != UNREAD && s->seen != v)
			violated("two reads after recovery differ", volume, sector + i, v, NULL,
				 "after recovery");
		s->seen = v;
		if (op->life != o.life)
			oracle_visible(op->life, op->submit);
	}
}

void oracle_verify_judge(void)
{
	unsigned volume;
	u32 x;

	for (volume = 0; volume < o.nr_volumes; volume++) {
		for (x = 0; x < o.nr_sectors[volume]; x++) {
			struct sector *s = &o.sectors[volume][x];

			if (s->seen == UNREAD)
				continue;
			judge_read(volume, x, s->seen, o.tick, o.tick, "after recovery");
			s->seen = UNREAD;
		}
	}
}

u8 oracle_life(void)
{
	return o.life;
}

void oracle_visible(u8 life, u32 tick)
{
	if (o.visible[life] < tick)
		o.visible[life] = tick;
}

u32 oracle_guaranteed_tick(u8 life)
{
	return guaranteed(life);
}

void oracle_check_image(unsigned volume, u32 sector, u32 nr, const u8 *image, const char *what)
{
	u32 i, t = oracle_tick();

	for (i = 0; i < nr; i++) {
		u32 v = sector_parse(image + (size_t)i * LC_SECTOR, volume, sector + i, what);

		judge_read(volume, sector + i, v, t, t, what);
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

void oracle_begin(u64 seed, unsigned nr_volumes, const u32 *nr_sectors, bool preset)
{
	unsigned v;
	u32 i;

	if (!o.ops) {
		o.ops = malloc(OPS_MAX * sizeof(*o.ops));
		o.nodes = malloc(NODES_MAX * sizeof(*o.nodes));
		for (v = 0; v < ORACLE_VOLUMES_MAX; v++)
			o.sectors[v] = malloc(ORACLE_SECTORS_MAX * sizeof(**o.sectors));
		for (i = 0; i < WORDS; i++)
			o.table[i] = mix(i + 1, 0x5eed);
		assert(o.ops && o.nodes && o.sectors[ORACLE_VOLUMES_MAX - 1]);
	}
	o.seed = seed;
	o.errors_allowed = o.loss_allowed = false;
	o.preset = preset;
	o.nr_volumes = nr_volumes;
	o.tick = 1;
	o.life = o.working_life = 0;
	memset(o.durable, 0, sizeof(o.durable));
	memset(o.visible, 0, sizeof(o.visible));
	memset(o.reads, 0, sizeof(o.reads));
	o.nr_ops = 1;
	o.ops[0] = (struct op){.fiber = "-"};
	o.nr_nodes = 1;
	o.free_node = 0;
	for (v = 0; v < nr_volumes; v++) {
		o.nr_sectors[v] = nr_sectors[v];
		assert(nr_sectors[v] <= ORACLE_SECTORS_MAX);
		for (i = 0; i < nr_sectors[v]; i++) {
			u32 n = node_new(0);

			o.nodes[n].settled = true;
			o.sectors[v][i] = (struct sector){.head = n, .seen = UNREAD};
		}
	}
}
