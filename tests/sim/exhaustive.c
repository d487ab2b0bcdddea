/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * exhaustive.c - enumerates crash states; exhaustive.h says which.
 *
 * The images are large and almost all of them stays as it was, so what is saved and restored is only the blocks
 * that were touched:
 *
 *	base	 after the past of the shape; the same for all workloads
 *	saved	 what is certain at the crash at hand; differs from base in the blocks of `changed`
 *
 * A case is SHAPE:WORKLOAD:MOMENT:STATE, and :MOMENT:VARIANT for a crash of its recovery. STATE counts the
 * combinations of fates, the first write varying fastest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "exhaustive.h"
#include "tiny.h"

#define STEPS_MAX 2000000u
#define STATES_MAX 2048u /* of one moment */
#define SEEN_BITS 22u
#define AGAIN_ONE_IN 150u /* states whose recovery is crashed, too */
#define NR_VARIANTS 4u
#define STORES 2u

enum fate { FATE_LOST, FATE_WHOLE, FATE_FIRST, FATE_SECOND };

static const char *const fate_names[] = {"lost", "there", "only its first half is there",
					 "only its second half is there"};

struct snap {
	struct store_sim *s;
	u8 *base, *saved, *changed;
	u64 nr_blocks;
	struct sim_write **writes; /* uncertain at the crash at hand */
	u32 *numbers;		   /* media_number at the crash */
	u32 nr;
};

static struct {
	struct tiny tiny;
	struct snap snaps[STORES];
	u64 *seen;
	u32 nr_seen;

	/* the case at hand */
	bool active;
	char workload[TINY_OPS_MAX + 1];
	u32 moment, again_moment, variant;
	u64 state;
	bool again, recovering;
	u32 crash_at, events;	      /* crash before this event of the life; 0: never */
	u32 done, durable, submitted; /* at the crash */
	char what[160];

	/* to run only one */
	const char *one;

	u64 nr_workloads, nr_moments, nr_states, nr_run, nr_again, nr_capped;
} x;

/* --- crashing --- */

static void before_change(const struct store_sim *s, enum lc_io_op op, u32 len_bytes, u64 offset_bytes)
{
	if (!x.tiny.working && !x.recovering)
		return;
	if (++x.events != x.crash_at)
		return;
	if (!x.recovering)
		snprintf(x.what, sizeof(x.what), "%s: right before %s %u bytes at %llu",
			 s->store.name,
			 op == LC_IO_WRITE ? "a write is submitted," : "a flush succeeds,",
			 len_bytes, (unsigned long long)offset_bytes);
	sim_trace("=== power cut");
	sim_crash_now();
}

/* Run a life up to that event, or to its end. */
static bool crashes(void (*fn)(void *), u32 at)
{
	enum sim_outcome outcome;
	u32 i;

	x.recovering = fn == tiny_recover;
	x.events = 0;
	x.crash_at = at;
	sim_history_begin_calm(STEPS_MAX);
	store_sim_before_change = before_change;
	outcome = sim_life(x.recovering ? "recovery" : "client", fn, &x.tiny);
	store_sim_before_change = NULL;
	for (i = 0; i < STORES; i++)
		store_sim_freeze(x.snaps[i].s);
	sim_life_end();
	return outcome == SIM_CRASHED;
}

/* --- images --- */

static void put_block(struct snap *p, u64 b, const u8 *from)
{
	memcpy(p->s->now + b * LC_BLOCK, from + b * LC_BLOCK, LC_BLOCK);
	memcpy(p->s->media + b * LC_BLOCK, from + b * LC_BLOCK, LC_BLOCK);
	memset(p->s->media_number + b * LC_SECTORS_PER_BLOCK, 0, LC_SECTORS_PER_BLOCK * sizeof(u32));
}

static void drop_writes(struct store_sim *s)
{
	while (s->nr_writes)
		free(s->writes[--s->nr_writes]);
	s->last_number = s->last_done = 0;
}

/* All is certain: the base of a shape. */
static void save_base(struct snap *p)
{
	memcpy(p->base, p->s->now, p->s->image_bytes);
	memcpy(p->s->media, p->base, p->s->image_bytes);
	memcpy(p->saved, p->base, p->s->image_bytes);
	memset(p->s->media_number, 0, p->s->image_bytes / LC_SECTOR * sizeof(u32));
	memset(p->s->touched, 0, p->nr_blocks);
	drop_writes(p->s);
}

static void save_crash(struct snap *p)
{
	u64 b;

	memcpy(p->changed, p->s->touched, p->nr_blocks);
	for (b = 0; b < p->nr_blocks; b++)
		if (p->changed[b])
			memcpy(p->saved + b * LC_BLOCK, p->s->media + b * LC_BLOCK, LC_BLOCK);
	memcpy(p->numbers, p->s->media_number, p->s->image_bytes / LC_SECTOR * sizeof(u32));
	p->nr = p->s->nr_writes;
	p->writes = realloc(p->writes, (p->nr + 1) * sizeof(*p->writes));
	if (!p->writes)
		abort();
	if (p->nr)
		memcpy(p->writes, p->s->writes, p->nr * sizeof(*p->writes));
	p->s->nr_writes = 0;
	for (b = 0; b < p->nr_blocks; b++)
		if (p->changed[b])
			put_block(p, b, p->saved);
	memset(p->s->touched, 0, p->nr_blocks);
	drop_writes(p->s);
}

/* What was certain at the crash, without what was done since. */
static void restore_crash(struct snap *p)
{
	u64 b;

	for (b = 0; b < p->nr_blocks; b++)
		if (p->s->touched[b])
			put_block(p, b, p->saved);
	memset(p->s->touched, 0, p->nr_blocks);
	drop_writes(p->s);
}

static void restore_base(struct snap *p)
{
	u64 b;

	for (b = 0; b < p->nr_blocks; b++) {
		if (!p->changed[b] && !p->s->touched[b])
			continue;
		memcpy(p->saved + b * LC_BLOCK, p->base + b * LC_BLOCK, LC_BLOCK);
		put_block(p, b, p->base);
	}
	memset(p->s->touched, 0, p->nr_blocks);
	memset(p->changed, 0, p->nr_blocks);
	drop_writes(p->s);
	while (p->nr)
		free(p->writes[--p->nr]);
}

/* --- fates --- */

static u32 nr_fates(const struct sim_write *w, bool torn)
{
	return torn && w->len_bytes > LC_SECTOR ? 4 : 2;
}

static void apply(struct store_sim *s, const struct sim_write *w, enum fate fate, const u32 *numbers)
{
	/* Torn between blocks, if there are several. */
	u32 unit = w->len_bytes > LC_BLOCK ? LC_BLOCK : LC_SECTOR, i;
	u32 half = (w->len_bytes / unit + 1) / 2 * unit;
	u32 from = fate == FATE_SECOND ? half : 0, to = fate == FATE_FIRST ? half : w->len_bytes;

	if (fate == FATE_LOST)
		return;
	for (i = from; i < to; i += LC_SECTOR) {
		u64 off = w->offset_bytes + i;

		if (w->number < numbers[off / LC_SECTOR])
			continue; /* something newer is certain there */
		memcpy(s->now + off, w->data + i, LC_SECTOR);
		memcpy(s->media + off, w->data + i, LC_SECTOR);
		s->touched[off / LC_BLOCK] = 1;
	}
}

/* The STATE-th combination; saved images are in place. */
static void apply_state(u64 state, bool torn, bool say)
{
	u32 i, k;

	for (i = 0; i < STORES; i++) {
		struct snap *p = &x.snaps[i];

		for (k = 0; k < p->nr; k++) {
			struct sim_write *w = p->writes[k];
			enum fate fate = (enum fate)(state % nr_fates(w, torn));

			state /= nr_fates(w, torn);
			if (say)
				fprintf(stderr, "    %s: %u bytes at %llu: %s\n", p->s->store.name,
					w->len_bytes, (unsigned long long)w->offset_bytes,
					fate_names[fate]);
			else
				apply(p->s, w, fate, p->numbers);
		}
	}
}

static u64 nr_states(bool torn)
{
	u64 n = 1;
	u32 i, k;

	for (i = 0; i < STORES; i++)
		for (k = 0; k < x.snaps[i].nr && n <= STATES_MAX * 4ull; k++)
			n *= nr_fates(x.snaps[i].writes[k], torn);
	return n;
}

/* --- states that were met before --- */

static u64 hash_sector(u64 key, const u8 *p)
{
	u64 h = key * 0x9e3779b97f4a7c15ull, w;
	u32 i;

	for (i = 0; i < LC_SECTOR; i += 8) {
		memcpy(&w, p + i, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return h;
}

static u64 hash_state(void)
{
	const struct tiny *t = &x.tiny;
	u64 h = (u64)(uintptr_t)t->shape + x.durable * 977u;
	u32 i, k, b;

	for (k = 0; k < x.submitted; k++)
		h = (h ^ (t->writes[k].first * 64u + t->writes[k].nr + t->writes[k].zero * 8192u)) *
		    0xff51afd7ed558ccdull;
	for (i = 0; i < STORES; i++) {
		struct snap *p = &x.snaps[i];

		for (b = 0; b < p->nr_blocks; b++) {
			u64 off = (u64)b * LC_BLOCK, end = off + LC_BLOCK;

			if (!p->changed[b] && !p->s->touched[b])
				continue;
			for (; off < end; off += LC_SECTOR)
				if (memcmp(p->s->now + off, p->base + off, LC_SECTOR))
					h ^= hash_sector(off * STORES + i + 1, p->s->now + off);
		}
	}
	return h ? h : 1;
}

static bool met_before(u64 h)
{
	u64 mask = (1ull << SEEN_BITS) - 1, at = h & mask;

	while (x.seen[at] && x.seen[at] != h)
		at = (at + 1) & mask;
	if (x.seen[at])
		return true;
	if (x.nr_seen < mask / 2) { /* when it is full, states are run twice */
		x.seen[at] = h;
		x.nr_seen++;
	}
	return false;
}

/* --- recovery --- */

static void prepare(u64 state, bool torn)
{
	u32 i;

	for (i = 0; i < STORES; i++)
		restore_crash(&x.snaps[i]);
	apply_state(state, torn, false);
}

static void recover(void)
{
	if (crashes(tiny_recover, 0))
		sim_fail("a recovery crashed unplanned");
}

/* What a crashed recovery leaves: everything, nothing, or the last write in part. */
static void second_fates(u32 variant)
{
	u32 i, k;

	for (i = 0; i < STORES; i++) {
		struct store_sim *s = x.snaps[i].s;
		u64 b;

		for (b = 0; b < x.snaps[i].nr_blocks; b++)
			if (s->touched[b])
				memcpy(s->now + b * LC_BLOCK, s->media + b * LC_BLOCK, LC_BLOCK);
		for (k = 0; k < s->nr_writes; k++)
			apply(s, s->writes[k],
			      k + 1 < s->nr_writes || variant < 2 ? (enum fate)(variant > 0) :
								    (enum fate)variant,
			      s->media_number);
		drop_writes(s);
		memset(s->media_number, 0, s->image_bytes / LC_SECTOR * sizeof(u32));
	}
}

static void recover_twice(u64 state, bool torn, u32 at, u32 variant)
{
	struct tiny *t = &x.tiny;

	x.again = true;
	x.again_moment = at;
	x.variant = variant;
	prepare(state, torn);
	t->is_settled = false;
	if (crashes(tiny_recover, at)) {
		x.nr_again++;
		second_fates(variant);
		recover();
	}
	x.again = false;
}

static void run_state(u64 state, bool torn)
{
	struct tiny *t = &x.tiny;
	u32 nr_events, at, variant;

	x.state = state;
	t->is_settled = false;
	recover();
	nr_events = x.events;
	x.nr_run++;
	if (x.one || x.nr_run % AGAIN_ONE_IN)
		return;
	for (at = 1; at <= nr_events; at++)
		for (variant = 0; variant < NR_VARIANTS; variant++)
			recover_twice(state, torn, at, variant);
}

/* --- workloads --- */

/* The case that --case gave: is this it? */
static bool wanted(u64 state)
{
	unsigned long long s;
	u32 moment, again, variant;
	char shape[32], work[32];
	int n;

	if (!x.one)
		return true;
	n = sscanf(x.one, "%31[^:]:%31[^:]:%u:%llu:%u:%u", shape, work, &moment, &s, &again,
		   &variant);
	if (n < 4 || moment != x.moment || s != state)
		return false;
	if (n == 6)
		recover_twice(state, nr_states(true) <= STATES_MAX, again, variant);
	return n == 4;
}

static void run_moment(void)
{
	struct tiny *t = &x.tiny;
	bool torn;
	u64 state, nr;
	u32 i;

	x.done = t->done;
	x.durable = t->nr_durable;
	x.submitted = t->nr_submitted;
	for (i = 0; i < STORES; i++)
		save_crash(&x.snaps[i]);
	torn = nr_states(true) <= STATES_MAX;
	nr = nr_states(torn);
	if (!torn)
		x.nr_capped++;
	if (nr > STATES_MAX)
		nr = STATES_MAX;
	x.nr_moments++;
	for (state = 0; state < nr; state++) {
		prepare(state, torn);
		x.nr_states++;
		x.state = state;
		if (x.one ? wanted(state) : !met_before(hash_state()))
			run_state(state, torn);
	}
	for (i = 0; i < STORES; i++)
		restore_base(&x.snaps[i]);
}

static void run_workload(const char *ops)
{
	struct tiny *t = &x.tiny;
	bool tracing = sim_tracing, crashed = true;

	snprintf(x.workload, sizeof(x.workload), "%s", ops);
	x.active = true;
	for (x.moment = 1; crashed; x.moment++) {
		if (x.one && !strstr(x.one, ":"))
			return;
		x.what[0] = 0;
		x.state = 0;
		tiny_reset(t);
		t->ops = x.workload;
		if (x.one) {
			u32 moment = 0;

			sscanf(x.one, "%*[^:]:%*[^:]:%u", &moment);
			sim_tracing = tracing && moment == x.moment;
		}
		crashed = crashes(tiny_work, x.moment);
		if (!crashed)
			snprintf(x.what, sizeof(x.what), "after the close");
		run_moment();
	}
	sim_tracing = tracing;
	x.active = false;
	x.nr_workloads++;
}

static void run_all(const char *letters, u32 length)
{
	u32 at[TINY_OPS_MAX] = {0}, n = (u32)strlen(letters), i;
	char ops[TINY_OPS_MAX + 1] = "";

	for (;;) {
		for (i = 0; i < length; i++)
			ops[i] = letters[at[i]];
		run_workload(ops);
		for (i = 0; i < length && ++at[i] == n; i++)
			at[i] = 0;
		if (i == length)
			return;
	}
}

static void run_shape(const struct tiny_shape *shape, u32 nr_ops)
{
	static const char letters[] = "01bs)!BSzZtfrdc";
	u32 i, length;

	x.active = false;
	sim_history_begin_calm(STEPS_MAX);
	for (i = 0; i < STORES; i++) /* nothing of the last shape may stay */
		memset(x.snaps[i].s->touched, 1, x.snaps[i].nr_blocks);
	tiny_begin(&x.tiny, shape);
	for (i = 0; i < STORES; i++)
		save_base(&x.snaps[i]);
	if (x.one) {
		char name[32] = "", ops[32] = "";

		if (sscanf(x.one, "%31[^:]:%31[^:]", name, ops) == 2 && !strcmp(name, shape->name))
			run_workload(*ops == '-' ? "" : ops);
		return;
	}
	for (length = 0; length <= nr_ops; length++)
		run_all(letters, length);
}

void exhaustive_run(u32 nr_ops, const char *one)
{
	clock_t start = clock();
	u32 i;

	tiny_create(&x.tiny);
	x.one = one;
	x.seen = calloc(1ull << SEEN_BITS, sizeof(*x.seen));
	for (i = 0; i < STORES; i++) {
		struct snap *p = &x.snaps[i];

		p->s = i ? &x.tiny.backing : &x.tiny.ssd;
		p->nr_blocks = p->s->image_bytes / LC_BLOCK;
		p->base = malloc(p->s->image_bytes);
		p->saved = malloc(p->s->image_bytes);
		p->changed = calloc(1, p->nr_blocks);
		p->numbers = malloc(p->s->image_bytes / LC_SECTOR * sizeof(u32));
		if (!x.seen || !p->base || !p->saved || !p->changed || !p->numbers)
			abort();
	}
	for (i = 0; i < tiny_nr_shapes; i++)
		run_shape(&tiny_shapes[i], nr_ops);
	printf("%llu workloads on %u shapes of cache, %llu moments for a crash, %llu states "
	       "(%llu different ones were run), %llu crashes of a recovery, %llu moments not "
	       "complete, %.1f s\n",
	       (unsigned long long)x.nr_workloads, tiny_nr_shapes, (unsigned long long)x.nr_moments,
	       (unsigned long long)x.nr_states, (unsigned long long)x.nr_run,
	       (unsigned long long)x.nr_again, (unsigned long long)x.nr_capped,
	       (double)(clock() - start) / CLOCKS_PER_SEC);
}

bool exhaustive_report(const char *program)
{
	const struct tiny *t = &x.tiny;
	u32 i;

	if (!x.active)
		return false;
	fprintf(stderr, "the cache: %s, %u segments of %u bytes; its past: %s\nthe client:\n",
		t->shape->name, t->shape->nr_segments, t->shape->segment_bytes,
		*t->shape->past ? t->shape->past : "just formatted");
	for (i = 0; x.workload[i]; i++)
		fprintf(stderr, "  %u. %s\n", i + 1, tiny_letter_text(x.workload[i]));
	if (*x.what) {
		fprintf(stderr,
			"power cut: %s; %u of these had been acknowledged; what was not certain:\n",
			x.what, x.done);
		apply_state(x.state, nr_states(true) <= STATES_MAX, true);
	}
	if (x.again)
		fprintf(stderr, "power cut: before change %u of the recovery, variant %u\n",
			x.again_moment, x.variant);
	fprintf(stderr, "replay with:\n  %s --exhaustive --case '%s:%s:%u:%llu", program,
		t->shape->name, *x.workload ? x.workload : "-", x.moment,
		(unsigned long long)x.state);
	if (x.again)
		fprintf(stderr, ":%u:%u", x.again_moment, x.variant);
	fprintf(stderr, "' --trace\n");
	return true;
}
