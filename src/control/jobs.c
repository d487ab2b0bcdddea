/* SPDX-License-Identifier: BSD-3-Clause */
/* jobs.c - see jobs.h. */
#include "jobs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "json.h"

/* Attaching is over before long, unless a backing store fails. */
#define ATTACH_PATIENCE_NS (5 * LC_NS_PER_S)
#define POLL_MS 10u

static const char *const kinds[] =
	{[JOB_DRAIN] = "drain", [JOB_ATTACH] = "attach", [JOB_DETACH] = "detach"};
static const char *const states[] =
	{[JOB_RUNNING] = "running", [JOB_DONE] = "done", [JOB_FAILED] = "failed"};

void jobs_init(struct jobs *j, const struct control_config *config)
{
	*j = (struct jobs){.config = config};
	lc_mutex_init(&j->lock);
	if (config->cache_path)
		snprintf(j->cache_path, sizeof j->cache_path, "%s", config->cache_path);
}

void jobs_destroy(struct jobs *j)
{
	lc_mutex_destroy(&j->lock);
}

/* [lock] */
static struct job *job_of(struct jobs *j, u64 id)
{
	struct job *job = &j->kept[id % JOBS_KEPT];

	return id && job->id == id ? job : NULL;
}

/* --- the thread --- */

static int run(struct jobs *j, const struct job *job, struct lc_error *err)
{
	const struct control_config *config = j->config;
	struct lc_error why;
	int rc;

	switch (job->kind) {
	case JOB_ATTACH:
		return config->attach(job->path, job->format, job->segment_bytes, err);
	case JOB_DETACH:
		return config->detach(err);
	case JOB_DRAIN:
		break;
	}
	rc = lc_cache_drain(config->cache);
	if (rc < 0) {
		lc_cache_drain_error(config->cache, rc, &why);
		lc_fail(err, rc, "not everything could be written back: %s", why.text);
	}
	return rc;
}

static void job_thread(void *arg)
{
	struct jobs *j = arg;
	struct lc_error err = {""};
	char lost[LC_COUNT_BYTES];
	struct lc_stats st;
	struct job job;
	int rc;

	lc_mutex_lock(&j->lock);
	job = *job_of(j, j->last_id);
	lc_mutex_unlock(&j->lock);

	rc = run(j, &job, &err);
	lc_cache_stats(j->config->cache, &st);
	if (rc < 0)
		lc_log(LC_LOG_WARNING, "%s failed: %s", kinds[job.kind], err.text);
	else if (job.kind == JOB_DRAIN && st.bad_blocks)
		lc_log(LC_LOG_WARNING,
		       "drain done: %s; but it has %s, where the backing stores have what was there before",
		       job.path, lc_count_text(lost, st.bad_blocks, "lost block"));
	else
		lc_log(LC_LOG_INFO, "%s done: %s", kinds[job.kind], job.path);

	lc_mutex_lock(&j->lock);
	job.held_ns = st.held_ns;
	job.bad_blocks = st.bad_blocks;
	/* After a detach that failed it stays. */
	if (!lc_cache_has_ssd(j->config->cache))
		j->cache_path[0] = '\0';
	else if (job.kind == JOB_ATTACH)
		memcpy(j->cache_path, job.path, sizeof job.path);
	job.state = rc < 0 ? JOB_FAILED : JOB_DONE;
	job.ended_ns = lc_now_ns();
	memcpy(job.error, err.text, sizeof job.error);
	*job_of(j, job.id) = job;
	lc_mutex_unlock(&j->lock);
}

/* --- starting --- */

/* Can it be begun at all? The engine checks as well; but this way it is answered at once. */
static int check(const struct job *wanted, const struct lc_stats *st, struct lc_error *err)
{
	bool has = st->state == LC_CACHE_ATTACHED;

	if (has && wanted->kind == JOB_ATTACH)
		return lc_fail(err, -EBUSY, "there is a cache already: detach it first");
	if (!has && wanted->kind != JOB_ATTACH)
		return lc_fail(err, -EBUSY, "there is no cache");
	return 0;
}

/* [lock] */
static int start(struct jobs *j, const struct job *wanted, struct lc_error *err)
{
	struct job *last = job_of(j, j->last_id), *job;
	struct lc_stats st;
	int rc;

	if (j->closed)
		return lc_fail(err, -ESHUTDOWN, "the server is shutting down");
	if (last && last->state == JOB_RUNNING)
		return lc_fail(err, -EBUSY, "job %llu (%s) is running: one at a time",
			       (unsigned long long)last->id, kinds[last->kind]);
	lc_cache_stats(j->config->cache, &st);
	rc = check(wanted, &st, err);
	if (rc < 0)
		return rc;
	if (j->to_join)
		lc_thread_join(&j->thread); /* at its very end: it has said that it is done */
	j->to_join = false;

	job = &j->kept[++j->last_id % JOBS_KEPT];
	*job = *wanted;
	job->id = j->last_id;
	job->state = JOB_RUNNING;
	job->started_s = time(NULL);
	job->began_ns = lc_now_ns();
	if (job->kind != JOB_ATTACH) {
		memcpy(job->path, j->cache_path, sizeof job->path);
		job->from_id = st.tail_id;
		job->upto_id = st.head_id;
		job->blocks = st.dirty_blocks + st.pending_zero_blocks;
	}
	rc = lc_thread_start(&j->thread, "lc-job", job_thread, j);
	if (rc < 0) {
		job->state = JOB_FAILED;
		job->ended_ns = job->began_ns;
		snprintf(job->error, sizeof job->error, "cannot start a thread: %s", strerror(-rc));
		return lc_fail(err, rc, "%s", job->error);
	}
	j->to_join = true;
	lc_log(LC_LOG_INFO, "%s begins: %s", kinds[job->kind], job->path);
	return 0;
}

int jobs_start(struct jobs *j, const struct job *wanted, json_t **out, struct lc_error *err)
{
	u64 id;
	int rc;

	lc_mutex_lock(&j->lock);
	rc = start(j, wanted, err);
	id = j->last_id;
	lc_mutex_unlock(&j->lock);
	if (rc == 0)
		*out = jobs_one(j, id);
	return rc;
}

/* --- the end --- */

static bool is_running(struct jobs *j, enum job_kind *kind)
{
	struct job *last;
	bool running;

	lc_mutex_lock(&j->lock);
	last = job_of(j, j->last_id);
	running = last && last->state == JOB_RUNNING;
	if (running)
		*kind = last->kind;
	lc_mutex_unlock(&j->lock);
	return running;
}

void jobs_finish(struct jobs *j, bool drain)
{
	enum job_kind kind;
	bool running;

	lc_mutex_lock(&j->lock);
	j->closed = true;
	lc_mutex_unlock(&j->lock);

	running = is_running(j, &kind);
	if (running && kind == JOB_ATTACH) {
		u64 until_ns = lc_now_ns() + ATTACH_PATIENCE_NS;

		while (is_running(j, &kind) && lc_now_ns() < until_ns)
			nanosleep(&(struct timespec){.tv_nsec = POLL_MS * LC_NS_PER_MS}, NULL);
		drain = false; /* it holds nothing yet that could be drained */
	}
	if (running && !drain && is_running(j, &kind)) {
		lc_log(LC_LOG_INFO, "%s is interrupted: the server is shutting down", kinds[kind]);
		lc_cache_interrupt(j->config->cache);
	}
	if (j->to_join)
		lc_thread_join(&j->thread);
	j->to_join = false;
}

/* --- telling --- */

/*
 * What is left of a job that is running; without the lock. Segments are written back in the order of the backing stores, so
 * all of them are left until nearly the end; blocks tell how far it is. What clients write meanwhile is dirty
 * as well, but the segments that are left hold no more than they can.
 */
static void left(struct jobs *j, const struct job *job, u64 *segments, u64 *blocks)
{
	struct lc_stats st;
	u64 most;

	*segments = *blocks = 0;
	lc_cache_stats(j->config->cache, &st);
	if (st.state == LC_CACHE_NONE || st.tail_id >= job->upto_id)
		return;
	*segments = job->upto_id - st.tail_id;
	most = *segments * (st.segment_bytes / LC_BLOCK - 1);
	*blocks = (st.dirty_blocks < most ? st.dirty_blocks : most) + st.pending_zero_blocks;
	if (*blocks > job->blocks)
		*blocks = job->blocks;
}

static json_t *describe(struct jobs *j, const struct job *job)
{
	bool running = job->state == JOB_RUNNING;
	u64 until_ns = running ? lc_now_ns() : job->ended_ns;
	json_t *o = json_pack("{s:I, s:s, s:s, s:o, s:f, s:o}", "id", (json_int_t)job->id, "kind",
			      kinds[job->kind], "state", states[job->state], "started",
			      json_wall_time(job->started_s), "seconds",
			      (until_ns - job->began_ns) / 1e9, "cache", json_text(job->path));

	if (job->kind != JOB_ATTACH) {
		u64 segments = 0, blocks = 0;

		if (running)
			left(j, job, &segments, &blocks);
		json_object_set_new(o, "segments", json_number_of(job->upto_id - job->from_id));
		json_object_set_new(o, "blocks", json_number_of(job->blocks));
		if (job->state != JOB_FAILED) {
			json_object_set_new(o, "segments_left", json_number_of(segments));
			json_object_set_new(o, "blocks_left", json_number_of(blocks));
		}
	}
	if (job->kind == JOB_DRAIN && !running)
		json_object_set_new(o, "bad_blocks", json_number_of(job->bad_blocks));
	if (job->kind != JOB_DRAIN && !running)
		json_object_set_new(o, "held_ms", json_real(job->held_ns / 1e6));
	if (job->state == JOB_FAILED)
		json_object_set_new(o, "error", json_text(job->error));
	return o;
}

json_t *jobs_one(struct jobs *j, u64 id)
{
	struct job job = {0}, *found;

	lc_mutex_lock(&j->lock);
	found = job_of(j, id ? id : j->last_id);
	if (found)
		job = *found;
	lc_mutex_unlock(&j->lock);
	return job.id ? describe(j, &job) : NULL;
}

json_t *jobs_all(struct jobs *j)
{
	json_t *all = json_array();
	u64 last;

	lc_mutex_lock(&j->lock);
	last = j->last_id;
	lc_mutex_unlock(&j->lock);
	for (u64 id = last; id && id + JOBS_KEPT > last; id--) {
		json_t *one = jobs_one(j, id);

		if (one)
			json_array_append_new(all, one);
	}
	return all;
}

void jobs_cache_path(struct jobs *j, char path[PATH_MAX])
{
	lc_mutex_lock(&j->lock);
	memcpy(path, j->cache_path, sizeof j->cache_path);
	lc_mutex_unlock(&j->lock);
}
