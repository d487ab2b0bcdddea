/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle_sector.c - see oracle_sector.h. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "content.h"
#include "oracle_sector.h"
#include "rt_sim.h"

#define OPS_MAX (1u << 20)
#define NODES_MAX (1u << 21)

struct node {
	u32 version;
	u32 first_end, last_start;
	u32 next;     /* 0: end of the list */
	u8 life;      /* raised to the present one when a read has decided for it */
	bool settled; /* survived a crash: durable */
};

struct sector {
	u32 head;
	u32 length;   /* of the list */
	u32 kept;     /* by the last pruning */
	bool touched; /* somebody wrote to it, whatever became of that */
};

static struct {
	struct sector *sectors[ORACLE_VOLUMES_MAX];
	struct op *ops;
	u32 nr_ops;
	struct node *nodes;
	u32 nr_nodes, free_node;
	u8 working_life; /* the last one with writes */
} o;

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

	return n->settled || oracle_flushed(op->life, op->volume, op->ack) ||
	       (op->fua && op->ack != ORACLE_NEVER);
}

/* Is A certainly older than B? Lives do not overlap. */
static bool before(const struct node *a, const struct node *b)
{
	if (a->life != b->life)
		return a->life < b->life;
	return a->first_end < b->last_start;
}

static void prune(struct sector *s)
{
	u32 oldest = oracle_oldest_read(), n, *p, last = 0, kept = 0;
	u8 life = oracle_life();

	for (n = s->head; n; n = o.nodes[n].next)
		if (o.nodes[n].life == life && durable(&o.nodes[n]) && o.nodes[n].first_end < oldest &&
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
	s->length = s->kept = kept;
}

static u32 find(const struct sector *s, u32 version)
{
	u32 n;

	for (n = s->head; n && o.nodes[n].version != version; n = o.nodes[n].next)
		;
	return n;
}

/* --- reports --- */

static void describe(const struct node *n)
{
	const struct op *op = &o.ops[n->version];

	fprintf(stderr, "  version %u", n->version);
	if (!n->version) {
		fprintf(stderr, " (initial content)");
	} else {
		fprintf(stderr,
			": %s%u sectors at %u%s by %s, life %u, submitted at tick %u (%.6f ms)",
			op->trim ? "trim, " :
			op->zero ? "zero, " :
				   "",
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

/* GOT is a version, or CONTENT_ZEROS. */
static _Noreturn void violated(const char *rule, unsigned volume, u32 sector, u32 got,
			       const struct node *other, const char *where)
{
	const struct sector *s = &o.sectors[volume][sector];
	u32 n;

	fprintf(stderr,
		"\noracle: %s\n  sector %u of volume %u (block %u.%u), %s at tick %u\nfound:\n",
		rule, sector, volume, sector / 8, sector % 8, where, oracle_now());
	n = got == CONTENT_ZEROS ? 0 : find(s, got);
	if (got == CONTENT_ZEROS) {
		fprintf(stderr, "  zeros\n");
	} else {
		struct node gone = {.version = got,
				    .first_end = o.ops[got].ack,
				    .last_start = o.ops[got].submit};

		describe(n ? &o.nodes[n] : &gone);
	}
	if (other) {
		fprintf(stderr, "but:\n");
		describe(other);
	}
	fprintf(stderr, "possible here%s:\n", s->head ? "" : ": nothing");
	for (n = s->head; n; n = o.nodes[n].next)
		describe(&o.nodes[n]);
	oracle_lives_describe(o.working_life, volume);
	sim_fail("oracle: %s", rule);
}

_Noreturn void sector_violated(const char *rule, unsigned volume, u32 sector, u32 version,
			       const char *where)
{
	violated(rule, volume, sector, version, NULL, where);
}

/* --- versions --- */

static u32 version_new(const struct op *op)
{
	u32 v = o.nr_ops++;

	if (v >= OPS_MAX)
		sim_fail("the oracle ran out of operations: the history is too long");
	o.ops[v] = *op;
	return v;
}

u32 version_submit(const struct op *op)
{
	u32 v = version_new(op), i;

	o.working_life = op->life;
	for (i = 0; i < op->nr; i++) {
		struct sector *s = &o.sectors[op->volume][op->sector + i];
		u32 n = node_new(v);

		o.nodes[n].first_end = ORACLE_NEVER;
		o.nodes[n].last_start = op->submit;
		o.nodes[n].next = s->head;
		s->head = n;
		s->touched = true;
		if (++s->length >= 2 * s->kept + 8)
			prune(s);
	}
	return v;
}

void version_acknowledged(u32 version, u32 tick)
{
	struct op *op = &o.ops[version];
	u32 i, n;

	op->ack = tick;
	op->ack_ns = sim_now();
	for (i = 0; i < op->nr; i++) {
		n = find(&o.sectors[op->volume][op->sector + i], version);
		/* A durable newer one, seen by a read, may have pushed it off the list. */
		if (n && o.nodes[n].first_end > tick)
			o.nodes[n].first_end = tick;
	}
}

void version_failed(u32 version)
{
	o.ops[version].failed = true;
}

u32 version_foreign(const struct op *op)
{
	u32 v = version_new(op), i, n;

	for (i = 0; i < op->nr; i++) {
		struct sector *s = &o.sectors[op->volume][op->sector + i];

		while ((n = s->head)) {
			s->head = o.nodes[n].next;
			node_free(n);
		}
		s->head = node_new(v);
		s->length = 1;
		s->touched = true;
		o.nodes[s->head].next = 0;
		o.nodes[s->head].life = oracle_life();
		o.nodes[s->head].settled = true;
	}
	return v;
}

const struct op *version_op(u32 version)
{
	return &o.ops[version];
}

u32 versions_nr(void)
{
	return o.nr_ops;
}

/* --- judging a read (rules 1 to 6) --- */

/*
 * What speaks against node N as what the read R returned? The rule, and in *AGAINST the node it
 * contradicts; NULL if nothing does.
 */
static const char *refute(const struct sector *s, u32 n, const struct read_time *r,
			  const struct node **against)
{
	struct node v = o.nodes[n];
	u32 m;

	if (v.life != r->life) { /* of an earlier life: may it have survived? */
		for (m = s->head; m; m = o.nodes[m].next) {
			const struct node *a = &o.nodes[m];
			const struct op *op = &o.ops[a->version];

			if (m == n || a->life == r->life || !before(&v, a))
				continue;
			*against = a;
			if (durable(a))
				return "lost: a durable write is gone (I2)";
			if (oracle_guaranteed(op->life, op->volume, op->submit, op->ack))
				return "not a prefix: a write acknowledged before a visible one "
				       "was submitted is gone (I9)";
		}
		v.life = r->life;
		v.first_end = v.last_start = 0;
	}
	if (v.first_end > r->end)
		v.first_end = r->end;
	if (v.last_start < r->start)
		v.last_start = r->start;
	for (m = s->head; m; m = o.nodes[m].next) {
		const struct node *u = &o.nodes[m];

		*against = u;
		if (m != n && u->life == r->life && before(&v, u) && before(u, &v))
			return "stale: a read went back in time, or missed an acknowledged write";
	}
	return NULL;
}

/* FOUND survived. Then nothing else of lives before this one, LIFE, did. */
static void settle(struct sector *s, u32 found, u8 life)
{
	u32 n, *p;

	for (p = &s->head; (n = *p);) {
		if (n != found && o.nodes[n].life != life) {
			*p = o.nodes[n].next;
			node_free(n);
		} else {
			p = &o.nodes[n].next;
		}
	}
	o.nodes[found].settled = true;
	o.nodes[found].life = life;
	o.nodes[found].first_end = o.nodes[found].last_start = 0;
}

/* The read R returned N, and nothing speaks against it. */
static void accept(struct sector *s, u32 n, const struct read_time *r)
{
	if (o.nodes[n].life != r->life)
		settle(s, n, r->life);
	if (o.nodes[n].first_end > r->end)
		o.nodes[n].first_end = r->end;
	if (o.nodes[n].last_start < r->start)
		o.nodes[n].last_start = r->start;
}

/* Rule 6: which of the operations that zeroed a sector can a read of zeros have seen? */
struct zeros {
	u32 nr, nr_old; /* all; those of earlier lives */
	u32 node;	/* one of them, old if there is one */
	bool one_life;	/* all of them were submitted in this life */
	u8 life;
	u32 submit;	  /* of the earliest */
	const char *rule; /* why one of the others cannot be it */
	const struct node *against;
};

/*
 * Stores that fail leave many that were never acknowledged. Such ones of one life, submitted before the read, are all
 * the same to refute(): one verdict does for them.
 */
static struct zeros zeros_of(const struct sector *s, const struct read_time *r)
{
	struct zeros z = {.one_life = true};
	u32 n, judged = 0;
	bool refuted = false;

	for (n = s->head; n; n = o.nodes[n].next) {
		const struct op *op = &o.ops[o.nodes[n].version];
		const struct node *against = NULL;
		const char *rule = NULL;
		bool old = o.nodes[n].life != r->life;
		bool open = o.nodes[n].first_end == ORACLE_NEVER && (old || op->submit <= r->start);

		if (!op->zero)
			continue;
		if (open && judged && o.nodes[judged].life == o.nodes[n].life) {
			if (refuted)
				continue;
		} else {
			rule = refute(s, n, r, &against);
		}
		if (open) {
			judged = n;
			refuted = rule != NULL;
		}
		if (rule) {
			z.rule = rule;
			z.against = against;
			continue;
		}
		z.one_life &= !z.nr || op->life == z.life;
		z.life = op->life;
		if (!z.nr || op->submit < z.submit)
			z.submit = op->submit;
		if (old || !z.nr_old)
			z.node = n;
		z.nr++;
		z.nr_old += old;
	}
	return z;
}

/* What do the zeros that were read say of what survived? Returns whether that was news. */
static bool learn_from_zeros(const struct zeros *z)
{
	/* Old ones and new ones: nothing is known. Else, whichever it was, it was not submitted before the earliest. */
	return z->nr && z->nr_old == z->nr && z->one_life && oracle_visible(z->life, z->submit);
}

/* The same for node N, read in LIFE: its content says whose it is. */
static bool learn_from_node(u32 n, u8 life)
{
	const struct op *op = &o.ops[o.nodes[n].version];

	return o.nodes[n].life != life && oracle_visible(op->life, op->submit);
}

static void judge_zeros(unsigned volume, u32 sector, const struct read_time *r, const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	struct zeros z = zeros_of(s, r);

	if (!z.nr)
		violated(z.rule ? z.rule : "zeros, where nobody zeroed, or that was replaced long ago",
			 volume, sector, CONTENT_ZEROS, z.against, where);
	/* Some of both: nothing is known. */
	if (z.nr > 1 && z.nr_old < z.nr)
		return;
	learn_from_zeros(&z);
	/* Several old ones: from now on they are the same. */
	accept(s, z.node, r);
}

/* The node of VERSION, which was read. */
static u32 possible(unsigned volume, u32 sector, u32 version, const char *where)
{
	u32 n = find(&o.sectors[volume][sector], version);

	if (!n)
		sector_violated("stale: a version that was replaced or lost long ago came back",
				volume, sector, version, where);
	return n;
}

void sector_judge(unsigned volume, u32 sector, u32 version, const struct read_time *r,
		  const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	const struct node *against;
	const char *rule;
	u32 n;

	if (version == CONTENT_ZEROS) {
		judge_zeros(volume, sector, r, where);
		return;
	}
	n = possible(volume, sector, version, where);
	learn_from_node(n, r->life);
	rule = refute(s, n, r, &against);
	if (rule)
		violated(rule, volume, sector, version, against, where);
	accept(s, n, r);
}

bool sector_found(unsigned volume, u32 sector, u32 version, const struct read_time *r,
		  const char *where)
{
	if (version == CONTENT_ZEROS) {
		struct zeros z = zeros_of(&o.sectors[volume][sector], r);

		return learn_from_zeros(&z);
	}
	return learn_from_node(possible(volume, sector, version, where), r->life);
}

bool sector_may_hold(unsigned volume, u32 sector, u32 version, const struct read_time *r)
{
	const struct sector *s = &o.sectors[volume][sector];
	const struct node *against;
	u32 n;

	if (version == CONTENT_BROKEN)
		return false;
	if (version == CONTENT_ZEROS)
		return zeros_of(s, r).nr > 0;
	n = find(s, version);
	return n && !refute(s, n, r, &against);
}

bool sector_touched(unsigned volume, u32 sector)
{
	return o.sectors[volume][sector].touched;
}

/* --- a new history --- */

void sectors_begin(unsigned nr_volumes, const u32 *nr_sectors, bool preset)
{
	unsigned v;
	u32 i;

	if (!o.ops) {
		o.ops = malloc(OPS_MAX * sizeof(*o.ops));
		o.nodes = malloc(NODES_MAX * sizeof(*o.nodes));
		for (v = 0; v < ORACLE_VOLUMES_MAX; v++)
			o.sectors[v] = malloc(ORACLE_SECTORS_MAX * sizeof(**o.sectors));
		assert(o.ops && o.nodes && o.sectors[ORACLE_VOLUMES_MAX - 1]);
	}
	o.working_life = 0;
	o.nr_ops = 1;
	o.ops[0] = (struct op){.fiber = "-", .zero = !preset};
	o.nr_nodes = 1;
	o.free_node = 0;
	for (v = 0; v < nr_volumes; v++) {
		assert(nr_sectors[v] <= ORACLE_SECTORS_MAX);
		for (i = 0; i < nr_sectors[v]; i++) {
			u32 n = node_new(0);

			o.nodes[n].settled = true;
			o.sectors[v][i] = (struct sector){.head = n};
		}
	}
}
