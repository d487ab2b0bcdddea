/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * priv.h - what the rooms of the control interface share. control.h is for everybody else.
 */
#ifndef LC_CONTROL_PRIV_H
#define LC_CONTROL_PRIV_H

#include "control.h"
#include "http.h"
#include "jobs.h"
#include "socket.h"
#include "worker.h"

struct control {
	struct unix_socket socket;
	const char *metrics_address;
	int metrics_fd; /* -1: none, or http's */
	bool started;	/* only then all that follows */
	struct control_config config;
	struct http *http, *metrics_http;
	struct worker worker;
	bool worker_runs;
	struct jobs jobs;
	struct lc_mutex settings_lock; /* one change after another; never held while a disk is waited for */
	enum control_phase phase; /* atomic */
	u64 started_ns;
	int64_t started_s; /* of the wall clock */
};

/* api.c: all that can be asked for. */
extern const struct route control_routes[];

/* --- status.c: handlers --- */

void status_get(struct exchange *x);
void volumes_get(struct exchange *x);
void volume_get(struct exchange *x);

/* --- metrics.c --- */

void metrics_get(struct exchange *x);

/* --- settings.c --- */

void settings_get(struct exchange *x);
void settings_patch(struct exchange *x);
/* {"key": value, ...}, for the status. */
json_t *settings_values(struct control *c);

/* Physical memory of the whole process; 0 if the system does not tell. */
u64 resident_bytes(void);

#endif
