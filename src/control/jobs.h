/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * jobs.h - what takes as long as it takes: drain, attach, detach. One at a time, in a thread of its own.
 *
 * A client that starts one gets its number and asks how it goes. The last JOBS_KEPT are remembered, so
 * that it also learns the end of one that others have followed.
 */
#ifndef LC_CONTROL_JOBS_H
#define LC_CONTROL_JOBS_H

#include <jansson.h>
#include <limits.h>

#include "control.h"

#define JOBS_KEPT 16u

enum job_kind { JOB_DRAIN, JOB_ATTACH, JOB_DETACH };
enum job_state { JOB_RUNNING, JOB_DONE, JOB_FAILED };

struct job {
	u64 id; /* 1, 2, ...; 0: there is none */
	enum job_kind kind;
	enum job_state state;
	int64_t started_s; /* of the wall clock */
	u64 began_ns, ended_ns;
	u64 held_ns; /* attach, detach, when it has ended: writers were held for so long at a stretch */
	/* What has to be written back: from the segment behind FROM_ID up to UPTO_ID; equal: nothing. */
	u64 from_id, upto_id;
	u64 blocks;	/* what was dirty then, or to be zeroed on a backing store */
	u64 bad_blocks; /* when it has ended: on the list of lost blocks, of which the backing stores have something older */
	char path[PATH_MAX]; /* attach, and of the cache that is drained or detached */
	enum control_format format;
	u32 segment_bytes;
	char error[sizeof(struct lc_error)];
};

struct jobs {
	struct lc_mutex lock;
	const struct control_config *config;
	struct lc_thread thread;
	bool to_join; /* the thread of the last job; the starters' (guarded by lock) */
	bool closed;  /* guarded by lock, as all that follows */
	u64 last_id;
	struct job kept[JOBS_KEPT]; /* number ID at ID % JOBS_KEPT */
	char cache_path[PATH_MAX];  /* "": none; of what is attached */
};

void jobs_init(struct jobs *j, const struct control_config *config);
void jobs_destroy(struct jobs *j);

/*
 * Start WANTED (kind, path, format, segment_bytes), and describe it in *OUT. 0; -EBUSY: another one runs, or there is
 * a cache, or none, as this must not be; -ESHUTDOWN; or there is no thread.
 */
int jobs_start(struct jobs *j, const struct job *wanted, json_t **out, struct lc_error *err);

/* No more; the one that runs is waited for (DRAIN) or interrupted. See control_finish_jobs(). */
void jobs_finish(struct jobs *j, bool drain);

/* Job number ID (0: the last one) as JSON; NULL: it is not known (any more). */
json_t *jobs_one(struct jobs *j, u64 id);
/* All that are remembered, the newest first. */
json_t *jobs_all(struct jobs *j);

/* The path of the SSD that is attached; "" if there is none. */
void jobs_cache_path(struct jobs *j, char path[PATH_MAX]);

#endif
