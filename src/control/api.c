/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * api.c - what can be asked for, and the handlers of what does something. docs/control.md is for the clients.
 */
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "latency.h"
#include "priv.h"

/* The body of a request that knows no members, and takes none. */
static bool no_members(struct exchange *x)
{
	json_t *body = exchange_body(x);

	if (!body)
		return false;
	if (json_object_size(body)) {
		exchange_error(x, MHD_HTTP_BAD_REQUEST, "%s: there is no such member",
			       json_stranger(body, (const char *const[]){NULL}));
		return false;
	}
	return true;
}

static void done(struct exchange *x)
{
	exchange_json(x, MHD_HTTP_OK, json_pack("{s:b}", "done", 1));
}

/* --- flush --- */

static void flush_failed(struct exchange *x, const struct lc_volume *v, int rc)
{
	char path[PATH_MAX];

	jobs_cache_path(&exchange_control(x)->jobs, path);
	if (*path)
		exchange_error(x, MHD_HTTP_INTERNAL_SERVER_ERROR, "cache %s cannot be flushed: %s",
			       path, strerror(-rc));
	else
		exchange_error(x, MHD_HTTP_INTERNAL_SERVER_ERROR,
			       "volume %s, %s, cannot be flushed: %s",
			       lc_volume_shown(lc_volume_name(v)), lc_volume_backing_name(v),
			       strerror(-rc));
}

/* In the worker's thread. With a cache one flush covers all volumes, and the others cost nothing. */
static void flush_now(struct exchange *x)
{
	struct control *c = exchange_control(x);

	for (unsigned i = 0; i < c->config.nr_volumes; i++) {
		struct lc_volume *v = lc_cache_volume(c->config.cache, i);
		int rc = lc_flush(v);

		if (rc == 0)
			continue;
		flush_failed(x, v, rc);
		return;
	}
	done(x);
}

static void flush_post(struct exchange *x)
{
	if (no_members(x))
		exchange_later(x, flush_now);
}

/* --- statistics --- */

static void reset_post(struct exchange *x)
{
	if (!no_members(x))
		return;
	lc_cache_reset_stats(exchange_control(x)->config.cache);
	latency_reset();
	done(x);
}

/* --- jobs --- */

static void start_job(struct exchange *x, const struct job *wanted)
{
	struct lc_error err = {""};
	json_t *job;
	int rc = jobs_start(&exchange_control(x)->jobs, wanted, &job, &err);

	if (rc == 0)
		exchange_json(x, MHD_HTTP_ACCEPTED, job);
	else if (rc == -EBUSY)
		exchange_error(x, MHD_HTTP_CONFLICT, "%s", err.text);
	else
		exchange_error(x, MHD_HTTP_SERVICE_UNAVAILABLE, "%s", err.text);
}

static void drain_post(struct exchange *x)
{
	if (no_members(x))
		start_job(x, &(struct job){.kind = JOB_DRAIN});
}

static void detach_post(struct exchange *x)
{
	if (no_members(x))
		start_job(x, &(struct job){.kind = JOB_DETACH});
}

static int take_format(const json_t *value, enum control_format *out, struct lc_error *err)
{
	static const char *const words[] =
		{[CONTROL_FORMAT_AUTO] = "auto", [CONTROL_FORMAT_NO] = "no", [CONTROL_FORMAT_FORCE] = "force"};
	const char *word = json_string_value(value);

	for (unsigned i = 0; word && i < sizeof words / sizeof *words; i++) {
		if (strcmp(word, words[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	return lc_fail(err, -EINVAL, "format: must be \"auto\", \"no\" or \"force\"");
}

static int take_segment_size(const json_t *value, u32 *out, struct lc_error *err)
{
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < LC_SEGMENT_MIN_BYTES || n > LC_SEGMENT_MAX_BYTES ||
	    (n & (n - 1)) != 0)
		return lc_fail(err, -EINVAL,
			       "segment-size: must be a power of two from %u to %u (bytes)",
			       LC_SEGMENT_MIN_BYTES, LC_SEGMENT_MAX_BYTES);
	*out = n;
	return 0;
}

static int take_path(const json_t *value, char path[PATH_MAX], struct lc_error *err)
{
	const char *text = json_string_value(value);

	/* The server has a working folder that nobody would guess. */
	if (!text || text[0] != '/')
		return lc_fail(err, -EINVAL,
			       "path: must be the absolute path of a block device or file");
	if (strlen(text) >= PATH_MAX)
		return lc_fail(err, -EINVAL, "path: at most %d bytes", PATH_MAX - 1);
	memcpy(path, text, strlen(text) + 1);
	return 0;
}

static int take_attach(json_t *body, struct job *job, struct lc_error *err)
{
	static const char *const members[] = {"path", "format", "segment-size", NULL};
	const char *stranger = json_stranger(body, members);
	const json_t *format = json_object_get(body, "format");
	const json_t *segment_size = json_object_get(body, "segment-size");
	int rc;

	if (stranger)
		return lc_fail(err, -EINVAL, "%s: there is no such member", stranger);
	rc = take_path(json_object_get(body, "path"), job->path, err);
	if (rc == 0 && format)
		rc = take_format(format, &job->format, err);
	if (rc == 0 && segment_size)
		rc = take_segment_size(segment_size, &job->segment_bytes, err);
	return rc;
}

static void attach_post(struct exchange *x)
{
	struct job job = {.kind = JOB_ATTACH};
	struct lc_error err = {""};
	json_t *body = exchange_body(x);

	if (!body)
		return;
	if (take_attach(body, &job, &err) < 0)
		exchange_error(x, MHD_HTTP_BAD_REQUEST, "%s", err.text);
	else
		start_job(x, &job);
}

static void jobs_get(struct exchange *x)
{
	exchange_json(x, MHD_HTTP_OK,
		      json_pack("{s:o}", "jobs", jobs_all(&exchange_control(x)->jobs)));
}

static void job_get(struct exchange *x)
{
	const char *text = exchange_rest(x);
	char *end;
	u64 id = strtoull(text, &end, 10);
	json_t *job = *text >= '1' && *text <= '9' && !*end ?
			      jobs_one(&exchange_control(x)->jobs, id) :
			      NULL;

	if (job)
		exchange_json(x, MHD_HTTP_OK, job);
	else
		exchange_error(x, MHD_HTTP_NOT_FOUND, "job '%s' is not known, or forgotten", text);
}

const struct route control_routes[] = {
	{"GET", "/metrics", true, NULL, metrics_get},
	{"GET", "/v1/status", true, "buckets", status_get},
	{"GET", "/v1/settings", false, NULL, settings_get},
	{"PATCH", "/v1/settings", false, "persist", settings_patch},
	{"GET", "/v1/volumes", false, NULL, volumes_get},
	{"GET", "/v1/volumes/", false, NULL, volume_get},
	{"POST", "/v1/flush", false, NULL, flush_post},
	{"POST", "/v1/drain", false, NULL, drain_post},
	{"POST", "/v1/cache/attach", false, NULL, attach_post},
	{"POST", "/v1/cache/detach", false, NULL, detach_post},
	{"GET", "/v1/jobs", false, NULL, jobs_get},
	{"GET", "/v1/jobs/", false, NULL, job_get},
	{"POST", "/v1/stats/reset", false, NULL, reset_post},
	{0},
};
