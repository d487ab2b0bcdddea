/* SPDX-License-Identifier: BSD-3-Clause */
/* oracle_lives.c - see oracle_lives.h. */
#include <stdio.h>
#include <string.h>

#include "oracle_lives.h"
#include "rt_sim.h"

#define READS_MAX 64u

/* Rule 8: a stretch of a life with a log. */
struct stretch {
	u32 from, until; /* ORACLE_NEVER: not known to have begun; nobody asked for its end */
	bool settled;
};

static struct {
	u32 tick;
	u8 life;
	struct stretch log[ORACLE_LIVES_MAX]; /* the last one of each life */
	/* By life: acknowledged before this tick, and durable. */
	u32 durable[ORACLE_LIVES_MAX][ORACLE_VOLUMES_MAX];
	u32 visible[ORACLE_LIVES_MAX]; /* rule 4's T */
	u32 reads[READS_MAX];	       /* start ticks of reads in progress, 0: free */
} o;

/* --- time --- */

u32 oracle_tick(void)
{
	return ++o.tick;
}

u32 oracle_now(void)
{
	return o.tick;
}

u32 oracle_read_begin(void)
{
	u32 i;

	for (i = 0; i < READS_MAX; i++) {
		if (!o.reads[i]) {
			o.reads[i] = oracle_tick();
			return i;
		}
	}
	sim_fail("the oracle ran out of reads in progress");
}

u32 oracle_read_end(u32 ticket)
{
	u32 start = o.reads[ticket];

	o.reads[ticket] = 0;
	return start;
}

u32 oracle_oldest_read(void)
{
	u32 i, t = o.tick;

	for (i = 0; i < READS_MAX; i++)
		if (o.reads[i] && o.reads[i] < t)
			t = o.reads[i];
	return t;
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

u8 oracle_life(void)
{
	return o.life;
}

bool oracle_has_log(u8 life)
{
	return o.log[life].settled && o.log[life].until == ORACLE_NEVER;
}

/* --- what must have survived --- */

void oracle_durable(unsigned volume, u32 tick)
{
	unsigned v;

	for (v = 0; v < ORACLE_VOLUMES_MAX; v++)
		if ((volume == ORACLE_ALL_VOLUMES || volume == v) && o.durable[o.life][v] < tick)
			o.durable[o.life][v] = tick;
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

bool oracle_flushed(u8 life, unsigned volume, u32 ack)
{
	return ack < o.durable[life][volume];
}

bool oracle_guaranteed(u8 life, unsigned volume, u32 submit, u32 ack)
{
	const struct stretch *s = &o.log[life];

	return oracle_flushed(life, volume, ack) ||
	       (ack < o.visible[life] && (s->settled || submit >= s->from));
}

/* --- for oracle.c, and for reports --- */

void oracle_lives_begin(void)
{
	memset(&o, 0, sizeof(o));
	o.tick = 1;
	o.log[0] = (struct stretch){0, ORACLE_NEVER, true};
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

void oracle_lives_describe(u8 life, unsigned volume)
{
	fprintf(stderr,
		"life %u; of life %u%s everything acknowledged before tick %u is durable, "
		"the newest visible was submitted at %u\n",
		o.life, life, stretch_text(&o.log[life]), o.durable[life][volume], o.visible[life]);
}
