/* SPDX-License-Identifier: BSD-3-Clause */
/* workload.c - what clients like to do: drawn at random, or as a scenario needs it. */
#include "history.h"

void workload_draw(struct workload *w, u32 nr_blocks)
{
	*w = (struct workload){
		.write = 50,
		.read = 25,
		.flush = sim_one_in(2) ? 5 : sim_log_between(1, 40),
		.think = 8,
		.bytes = 12,
		.zero = sim_one_in(3) ? 0 : sim_log_between(1, 30),
		.trim = sim_one_in(3) ? 0 : sim_log_between(1, 30),
		.extent = 2,
		.fua_percent = sim_one_in(3) ? sim_below(60) : 3,
		.hot_percent = sim_one_in(3) ? 90 : sim_below(60),
		.hot_block = sim_below(nr_blocks),
		.hot_blocks = sim_between(1, 6),
		.big_percent = sim_one_in(6) ? 20 : sim_below(3),
		.think_max_ns = sim_log_between(10000, 50000000),
		.sequential = sim_one_in(6),
		.drains = sim_one_in(8) ? 10 : 0,
	};
	if (sim_one_in(5)) { /* never flushes: the log must not wedge (I10) */
		w->flush = 0;
		w->fua_percent = 0;
	}
	if (sim_one_in(8)) /* writes and nothing else: laps of the log */
		w->read = w->think = w->bytes = w->extent = 0;
	if (sim_one_in(8)) { /* mostly reads */
		w->read = 200;
		w->write = 20;
	}
}

void workload_scenario(struct workload *w, enum scenario s, u32 nr_blocks)
{
	*w = (struct workload){
		.write = 60,
		.read = 5,
		.hot_block = sim_below(nr_blocks),
		.hot_blocks = sim_between(1, 6),
		.hot_percent = sim_below(100),
		.zero = sim_one_in(2) ? 0 : sim_below(10),
		.trim = sim_one_in(2) ? 0 : sim_below(10),
	};
	switch (s) {
	case SCENARIO_STAMMER:
		w->fua_percent = sim_one_in(2) ? 100 : 60;
		w->single = !sim_one_in(4);
		break;
	case SCENARIO_FULL:
		w->read = sim_one_in(4) ? 5 : 0;
		w->hot_percent = 0;
		w->big_percent = sim_below(20);
		break;
	case SCENARIO_SUPERSEDE:
		w->hot_percent = 100;
		w->hot_blocks = sim_between(1, 3);
		w->single = true;
		w->flush = sim_one_in(2) ? 0 : 3;
		w->drains = sim_between(20, 200);
		break;
	case SCENARIO_PATCHWORK:
		w->fua_percent = sim_between(30, 90);
		w->hot_percent = sim_between(80, 98);
		w->single = sim_one_in(2);
		w->big_percent = w->single ? 0 : sim_below(30);
		w->drains = sim_between(10, 100);
		break;
	case SCENARIO_PENDING:
		w->write = sim_between(5, 60);
		w->read = 10;
		w->trim = sim_below(80);
		w->zero = sim_below(40);
		w->extent = 3;
		w->single = sim_one_in(2);
		w->flush = sim_one_in(2) ? 0 : 5;
		w->fua_percent = sim_one_in(2) ? 0 : sim_below(60);
		w->hot_percent = sim_one_in(2) ? 0 : sim_below(100);
		w->hot_blocks = sim_between(1, 20);
		w->drains = sim_one_in(2) ? 0 : sim_below(30);
		break;
	default:
		w->flush = sim_below(40);
		w->fua_percent = sim_below(100);
		w->hot_percent = sim_below(100);
		w->single = sim_one_in(2);
	}
}
