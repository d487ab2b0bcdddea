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

#include "content.h"
#include "oracle.h"
#include "rt_sim.h"

#define OPS_MAX (1u << 20)
#define NODES_MAX (1u << 21)
#define READS_MAX 64u
#define UNREAD UINT32_MAX

/* A write. Version 0 is the initial content. */
struct op {
	u32 volume, sector, nr;
	u32 submit, ack; /* ticks; ack ORACLE_NEVER: not (yet) acknowledged */
	u64 submit_ns, ack_ns;
	const char *fiber;
	u8 life;
	bool fua, failed;
	bool zero; /* lc_zero, or lc_trim; its content says nothing of who wrote it */
	bool trim; /* for people */
	struct oracle_promise promise; /* FUA */
};

/* Rule 8: a stretch of a life with a log. */
struct stretch {
	u32 from, until; /* ORACLE_NEVER: not known to have begun; nobody asked for its end */
	bool settled;
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
	u32 length;   /* of the list */
	u32 kept;     /* by the last pruning */
	bool touched; /* somebody wrote to it, whatever became of that */
	u32 seen;     /* the version that verification read, UNREAD if none */
};

static struct {
	bool errors_allowed, loss_allowed;
	unsigned nr_volumes;
	u32 nr_sectors[ORACLE_VOLUMES_MAX];
	struct sector *sectors[ORACLE_VOLUMES_MAX];
	struct op *ops;
	u32 nr_ops;
	struct node *nodes;
	u32 nr_nodes, free_node;
	u32 tick;
	u8 life;
	u8 working_life;		      /* the last one with writes */
	struct stretch log[ORACLE_LIVES_MAX]; /* the last one of each life */
	/* By life: acknowledged before this tick, and durable. */
	u32 durable[ORACLE_LIVES_MAX][ORACLE_VOLUMES_MAX];
	u32 visible[ORACLE_LIVES_MAX]; /* rule 4's T */
	u32 reads[READS_MAX];	       /* start ticks of reads in progress, 0: free */
} o;

static u32 parse(const u8 *buf, unsigned volume, u32 sector, const char *where)
{
	return content_parse(buf, volume, sector, o.nr_ops, where);
}

void oracle_preset_sector(unsigned volume, u32 sector, u8 *buf)
{
	content_fill(buf, volume, sector, 0);
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

	return n->settled || op->ack < o.durable[op->life][op->volume] ||
	       (op->fua && op->ack != ORACLE_NEVER);
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
	s->length = s->kept = kept;
}

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

static u32 find(const struct sector *s, u32 version)
{
	u32 n;

	for (n = s->head; n && o.nodes[n].version != version; n = o.nodes[n].next)
		;
	return n;
}

static const char *stretch_text(const struct stretch *s)
{
	static char text[80];

	if (s->from == ORACLE_NEVER)
		return " (without an SSD)";
	snprintf(text, sizeof text, " (log from %u%s, until %d)", s->from,
		 s->settled ? ", settled" : "", (int)s->until);
	return text;
}

/* GOT is a version, or CONTENT_ZEROS. */
static _Noreturn void violated(const char *rule, unsigned volume, u32 sector, u32 got,
			       const struct node *other, const char *where)
{
	const struct sector *s = &o.sectors[volume][sector];
	u32 n;

	fprintf(stderr,
		"\noracle: %s\n  sector %u of volume %u (block %u.%u), %s at tick %u\nfound:\n",
		rule, sector, volume, sector / 8, sector % 8, where, o.tick);
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
	fprintf(stderr,
		"life %u; of life %u%s everything acknowledged before tick %u is durable, "
		"the newest visible was submitted at %u\n",
		o.life, o.working_life, stretch_text(&o.log[o.working_life]),
		o.durable[o.working_life][volume], o.visible[o.working_life]);
	sim_fail("oracle: %s", rule);
}

/* --- judging a read (rules 1 to 6) --- */

bool oracle_guaranteed(u8 life, unsigned volume, u32 submit, u32 ack)
{
	const struct stretch *s = &o.log[life];

	return ack < o.durable[life][volume] ||
	       (ack < o.visible[life] && (s->settled || submit >= s->from));
}

/*
 * What speaks against node N as what a read from START to END returned? The rule, and in *AGAINST the node it
 * contradicts; NULL if nothing does.
 */
static const char *refute(const struct sector *s, u32 n, u32 start, u32 end,
			  const struct node **against)
{
	struct node v = o.nodes[n];
	u32 m;

	if (v.life != o.life) { /* of an earlier life: may it have survived? */
		for (m = s->head; m; m = o.nodes[m].next) {
			const struct node *a = &o.nodes[m];
			const struct op *op = &o.ops[a->version];

			if (m == n || a->life == o.life || !before(&v, a))
				continue;
			*against = a;
			if (durable(a))
				return "lost: a durable write is gone (I2)";
			if (oracle_guaranteed(op->life, op->volume, op->submit, op->ack))
				return "not a prefix: a write acknowledged before a visible one "
				       "was submitted is gone (I9)";
		}
		v.life = o.life;
		v.first_end = v.last_start = 0;
	}
	if (v.first_end > end)
		v.first_end = end;
	if (v.last_start < start)
		v.last_start = start;
	for (m = s->head; m; m = o.nodes[m].next) {
		const struct node *u = &o.nodes[m];

		*against = u;
		if (m != n && u->life == o.life && before(&v, u) && before(u, &v))
			return "stale: a read went back in time, or missed an acknowledged write";
	}
	return NULL;
}

/* N survived. Then nothing else of earlier lives did. */
static void settle(struct sector *s, u32 found)
{
	u32 n, *p;

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

/* A read from START to END returned N, and nothing speaks against it. */
static void accept(struct sector *s, u32 n, u32 start, u32 end)
{
	if (o.nodes[n].life != o.life)
		settle(s, n);
	if (o.nodes[n].first_end > end)
		o.nodes[n].first_end = end;
	if (o.nodes[n].last_start < start)
		o.nodes[n].last_start = start;
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
static struct zeros zeros_of(const struct sector *s, u32 start, u32 end)
{
	struct zeros z = {.one_life = true};
	u32 n, judged = 0;
	bool refuted = false;

	for (n = s->head; n; n = o.nodes[n].next) {
		const struct op *op = &o.ops[o.nodes[n].version];
		const struct node *against = NULL;
		const char *rule = NULL;
		bool old = o.nodes[n].life != o.life;
		bool open = o.nodes[n].first_end == ORACLE_NEVER && (old || op->submit <= start);

		if (!op->zero)
			continue;
		if (open && judged && o.nodes[judged].life == o.nodes[n].life) {
			if (refuted)
				continue;
		} else {
			rule = refute(s, n, start, end, &against);
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

static void judge_zeros(unsigned volume, u32 sector, u32 start, u32 end, const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	struct zeros z = zeros_of(s, start, end);

	if (!z.nr)
		violated(z.rule ? z.rule : "zeros, where nobody zeroed, or that was replaced long ago",
			 volume, sector, CONTENT_ZEROS, z.against, where);
	/* Some of both: nothing is known. */
	if (z.nr > 1 && z.nr_old < z.nr)
		return;
	/* Whichever it was, it was not submitted before the earliest one. */
	if (z.nr_old && z.one_life)
		oracle_visible(z.life, z.submit);
	/* Several old ones: from now on they are the same. */
	accept(s, z.node, start, end);
}

/* A read from START to END returned VERSION, or CONTENT_ZEROS. */
static void judge_read(unsigned volume, u32 sector, u32 version, u32 start, u32 end, const char *where)
{
	struct sector *s = &o.sectors[volume][sector];
	const struct node *against;
	const char *rule;
	u32 n;

	if (o.loss_allowed)
		return;
	if (version == CONTENT_ZEROS) {
		judge_zeros(volume, sector, start, end, where);
		return;
	}
	n = find(s, version);
	if (!n)
		violated("stale: a version that was replaced or lost long ago came back", volume,
			 sector, version, NULL, where);
	if (o.nodes[n].life != o.life)
		oracle_visible(o.ops[version].life, o.ops[version].submit);
	rule = refute(s, n, start, end, &against);
	if (rule)
		violated(rule, volume, sector, version, against, where);
	accept(s, n, start, end);
}

/* --- clients --- */

u32 oracle_tick(void)
{
	return ++o.tick;
}

static u32 submit(unsigned volume, u32 sector, u32 nr, bool fua)
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
			       .fua = fua,
			       .promise = oracle_promise(t)};
	for (i = 0; i < nr; i++) {
		struct sector *s = &o.sectors[volume][sector + i];
		u32 n = node_new(v);

		o.nodes[n].first_end = ORACLE_NEVER;
		o.nodes[n].last_start = t;
		o.nodes[n].next = s->head;
		s->head = n;
		s->touched = true;
		if (++s->length >= 2 * s->kept + 8)
			prune(s);
	}
	return v;
}

u32 oracle_write_submit(unsigned volume, u32 sector, u32 nr, bool fua, u8 *buf)
{
	u32 v = submit(volume, sector, nr, fua), i;

	for (i = 0; i < nr; i++)
		content_fill(buf + (size_t)i * LC_SECTOR, volume, sector + i, v);
	sim_trace("write v%u submit, sectors %u+%u of %u%s (tick %u)", v, sector, nr, volume,
		  fua ? ", FUA" : "", o.ops[v].submit);
	return v;
}

u32 oracle_zero_submit(unsigned volume, u32 sector, u32 nr, bool fua, bool trim)
{
	u32 v = submit(volume, sector, nr, fua);

	o.ops[v].zero = true;
	o.ops[v].trim = trim;
	sim_trace("%s v%u submit, sectors %u+%u of %u%s (tick %u)", trim ? "trim" : "zero", v,
		  sector, nr, volume, fua ? ", FUA" : "", o.ops[v].submit);
	return v;
}

void oracle_write_done(u32 version, int error)
{
	struct op *op = &o.ops[version];
	u32 t = oracle_tick(), i, n;

	sim_trace("%s v%u done: %d (tick %u)",
		  op->trim ? "trim" :
		  op->zero ? "zero" :
			     "write",
		  version, error, t);
	if (error) {
		/* Any sector of it may be there, now or later, until something newer is. */
		op->failed = true;
		if (!o.errors_allowed)
			sim_fail("%s v%u of %u sectors at %u failed with %d, but no store did",
				 op->zero ? "zero" : "write", version, op->nr, op->sector, error);
		return;
	}
	op->ack = t;
	op->ack_ns = sim_now();
	if (op->fua) /* by rule 4, so is all that was acknowledged before */
		oracle_kept(op->promise);
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
		u32 v = parse(buf + (size_t)i * LC_SECTOR, volume, sector + i, "read");

		judge_read(volume, sector + i, v, start, end, "read");
	}
	sim_trace("read done, sectors %u+%u of %u (ticks %u-%u), the first holds v%d", sector, nr,
		  volume, start, end, (int)parse(buf, volume, sector, "read"));
}

void oracle_hole_done(u32 ticket, unsigned volume, u32 sector, u32 nr)
{
	u32 start = o.reads[ticket], end = oracle_tick(), i;

	o.reads[ticket] = 0;
	for (i = 0; i < nr; i++)
		judge_read(volume, sector + i, CONTENT_ZEROS, start, end, "in a hole");
	if (nr)
		sim_trace("hole, sectors %u+%u of %u (ticks %u-%u)", sector, nr, volume, start, end);
}

void oracle_durable(unsigned volume, u32 tick)
{
	unsigned v;

	for (v = 0; v < o.nr_volumes; v++)
		if ((volume == ORACLE_ALL_VOLUMES || volume == v) && o.durable[o.life][v] < tick)
			o.durable[o.life][v] = tick;
}

/* --- lives --- */

void oracle_opened(bool log)
{
	if (++o.life == ORACLE_LIVES_MAX - 1)
		sim_fail("the oracle ran out of lives");
	o.log[o.life] = (struct stretch){log ? 0 : ORACLE_NEVER, ORACLE_NEVER, log};
	memset(o.reads, 0, sizeof(o.reads));
	oracle_tick();
}

void oracle_attaching(void)
{
	o.log[o.life] = (struct stretch){ORACLE_NEVER, ORACLE_NEVER, false};
	sim_trace("attaching (tick %u)", oracle_tick());
}

void oracle_switched(void)
{
	if (o.log[o.life].from != ORACLE_NEVER)
		return;
	o.log[o.life].from = oracle_tick();
	sim_trace("the log is in use (tick %u)", o.tick);
}

bool oracle_switch_seen(void)
{
	return o.log[o.life].from != ORACLE_NEVER;
}

void oracle_settled(void)
{
	oracle_switched();
	o.log[o.life].settled = true;
}

u32 oracle_detaching(void)
{
	o.log[o.life].until = oracle_tick();
	sim_trace("detaching (tick %u)", o.tick);
	return o.tick;
}

void oracle_detached(bool done)
{
	o.log[o.life].until = ORACLE_NEVER;
	if (done)
		o.log[o.life] = (struct stretch){ORACLE_NEVER, ORACLE_NEVER, false};
	oracle_tick();
}

struct oracle_promise oracle_promise(u32 tick)
{
	const struct stretch *s = &o.log[o.life];
	struct oracle_promise p = {.tick = 0};

	if (s->from == ORACLE_NEVER || tick < s->from)
		return p;
	p.tick = tick < s->until ? tick : s->until;
	p.loose = !s->settled;
	return p;
}

void oracle_kept(struct oracle_promise p)
{
	if (p.loose)
		oracle_visible(o.life, p.tick);
	else if (p.tick)
		oracle_durable(ORACLE_ALL_VOLUMES, p.tick);
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
		oracle_durable(ORACLE_ALL_VOLUMES, t);
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
		u32 v = parse(buf + (size_t)i * LC_SECTOR, volume, sector + i, "read after recovery");

		if (o.loss_allowed)
			continue;
		if (v != CONTENT_ZEROS && !find(s, v))
			violated("stale: a version that was replaced or lost long ago came back",
				 volume, sector + i, v, NULL, "after recovery");
		if (s->seen != UNREAD && s->seen != v)
			violated("two reads after recovery differ", volume, sector + i, v, NULL,
				 "after recovery");
		s->seen = v;
		if (v != CONTENT_ZEROS && o.ops[v].life != o.life)
			oracle_visible(o.ops[v].life, o.ops[v].submit);
	}
}

/* What do the zeros that verification read say about what survived? Returns whether that was news. */
static bool learn_from_zeros(void)
{
	bool news = false;
	unsigned volume;
	u32 x;

	for (volume = 0; volume < o.nr_volumes; volume++) {
		for (x = 0; x < o.nr_sectors[volume]; x++) {
			const struct sector *s = &o.sectors[volume][x];
			struct zeros z;

			if (s->seen != CONTENT_ZEROS)
				continue;
			z = zeros_of(s, o.tick, o.tick);
			if (!z.nr || z.nr_old < z.nr || !z.one_life)
				continue;
			news |= oracle_visible(z.life, z.submit);
		}
	}
	return news;
}

void oracle_verify_judge(void)
{
	unsigned volume;
	u32 x;

	while (learn_from_zeros()) /* what is visible may exclude other origins of zeros */
		;
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

bool oracle_visible(u8 life, u32 tick)
{
	const struct stretch *s = &o.log[life];

	if (s->from == ORACLE_NEVER || tick < s->from)
		return false;
	if (tick > s->until)
		tick = s->until;
	if (o.visible[life] >= tick)
		return false;
	o.visible[life] = tick;
	return true;
}

bool oracle_has_log(u8 life)
{
	return o.log[life].settled && o.log[life].until == ORACLE_NEVER;
}

void oracle_check_image(unsigned volume, u32 sector, u32 nr, const u8 *image, const char *what)
{
	u32 i, t = oracle_tick();

	for (i = 0; i < nr; i++) {
		u32 v = parse(image + (size_t)i * LC_SECTOR, volume, sector + i, what);

		judge_read(volume, sector + i, v, t, t, what);
	}
}

/* May a read of SECTOR return V now? */
static bool may_be(unsigned volume, u32 sector, u32 v)
{
	const struct sector *s = &o.sectors[volume][sector];
	const struct node *against;
	u32 n;

	if (v == CONTENT_BROKEN)
		return false;
	if (v == CONTENT_ZEROS)
		return zeros_of(s, o.tick, o.tick).nr > 0;
	n = find(s, v);
	return n && !refute(s, n, o.tick, o.tick, &against);
}

bool oracle_image_current(unsigned volume, const u8 *image)
{
	bool may = true;
	u32 x;

	for (x = 0; x < o.nr_sectors[volume] && may; x++)
		may = may_be(volume, x, parse(image + (size_t)x * LC_SECTOR, volume, x, NULL));
	return may;
}

bool oracle_image_suffices(unsigned volume, const u8 *image)
{
	bool suffices;

	o.life++; /* look at it from the next one */
	suffices = oracle_image_current(volume, image);
	o.life--;
	return suffices;
}

bool oracle_untouched(unsigned volume, u32 sector, u32 nr)
{
	const struct sector *s = &o.sectors[volume][sector];

	for (; nr; nr--, s++)
		if (s->touched)
			return false;
	return true;
}

void oracle_foreign(unsigned volume, u32 sector, u32 nr, u8 *buf)
{
	u32 v = o.nr_ops++, i, n;

	if (v >= OPS_MAX)
		sim_fail("the oracle ran out of operations: the history is too long");
	/* Of no life: no log knows of it. */
	o.ops[v] = (struct op){.volume = volume,
			       .sector = sector,
			       .nr = nr,
			       .submit = o.tick,
			       .ack = o.tick,
			       .fiber = "somebody else"};
	for (i = 0; i < nr; i++) {
		struct sector *s = &o.sectors[volume][sector + i];

		while ((n = s->head)) {
			s->head = o.nodes[n].next;
			node_free(n);
		}
		s->head = node_new(v);
		s->length = 1;
		s->touched = true;
		o.nodes[s->head].next = 0;
		o.nodes[s->head].life = o.life;
		o.nodes[s->head].settled = true;
		content_fill(buf + (size_t)i * LC_SECTOR, volume, sector + i, v);
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
		assert(o.ops && o.nodes && o.sectors[ORACLE_VOLUMES_MAX - 1]);
	}
	content_begin(seed);
	o.errors_allowed = o.loss_allowed = false;
	o.nr_volumes = nr_volumes;
	o.tick = 1;
	o.life = o.working_life = 0;
	memset(o.durable, 0, sizeof(o.durable));
	o.log[0] = (struct stretch){0, ORACLE_NEVER, true};
	memset(o.visible, 0, sizeof(o.visible));
	memset(o.reads, 0, sizeof(o.reads));
	o.nr_ops = 1;
	o.ops[0] = (struct op){.fiber = "-", .zero = !preset};
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
