/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * online_jobs.c - logcachectl drain, attach, detach: what a running server does as a job, and waiting for it.
 *
 * Without --wait a command returns as soon as the job has begun, and "status" tells how it goes. With --wait it
 * shows how far it is, on a terminal, and its exit status says how it ended.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "http.h"
#include "online.h"
#include "size.h"

#define POLL_NS 200000000L
#define BAR_CELLS 30

/* Take WORD out of the arguments; was it there? */
static bool take_word(int *argc, char **argv, const char *word)
{
	int n = 1;

	for (int i = 1; i < *argc; i++)
		if (strcmp(argv[i], word) != 0)
			argv[n++] = argv[i];
	if (n == *argc)
		return false;
	*argc = n;
	argv[n] = NULL;
	return true;
}

static void show_progress(const json_t *job)
{
	double total = number_of(job, "blocks"), left = number_of(job, "blocks_left");
	double share = total > 0 ? (total - left) / total : 0, seconds = number_of(job, "seconds");
	char bar[BAR_CELLS + 1], text[TEXT_BYTES], of[TEXT_BYTES], estimate[TEXT_BYTES + 16] = "";
	int filled = (int)(share * BAR_CELLS);

	if (!isatty(STDERR_FILENO))
		return;
	memset(bar, '-', BAR_CELLS);
	memset(bar, '#', filled);
	bar[BAR_CELLS] = '\0';
	if (share > 0 && share < 1)
		snprintf(estimate, sizeof estimate, ", about %s left",
			 duration_text(text, seconds / share * (1 - share)));
	if (total > 0)
		fprintf(stderr, "\r\033[K%s [%s] %3.0f %%, %s of %s left%s", text_of(job, "kind"),
			bar, share * 100, bytes_text(text, left * LC_BLOCK),
			bytes_text(of, total * LC_BLOCK), estimate);
	else
		fprintf(stderr, "\r\033[K%s: %s", text_of(job, "kind"), duration_text(text, seconds));
	fflush(stderr);
}

/* JOB is the caller's, and exchanged for newer ones. */
static int wait_for(const char *socket, json_t **job)
{
	char path[64];

	snprintf(path, sizeof path, "/v1/jobs/%.0f", number_of(*job, "id"));
	while (strcmp(text_of(*job, "state"), "running") == 0) {
		json_t *newer;

		show_progress(*job);
		nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
		if (!http_ask(socket, "GET", path, NULL, &newer))
			return CTL_FAILED;
		json_decref(*job);
		*job = newer;
	}
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	if (strcmp(text_of(*job, "state"), "done") == 0)
		return CTL_OK;
	return fail("%s failed: %s", text_of(*job, "kind"), text_of(*job, "error"));
}

static int run_job(const char *socket, const char *path, json_t *body, bool wait)
{
	json_t *job;
	char text[TEXT_BYTES], held[TEXT_BYTES + 32] = "";
	int ret = CTL_OK;

	if (!http_ask(socket, "POST", path, body, &job))
		return CTL_FAILED;
	if (wait)
		ret = wait_for(socket, &job);
	if (json_is_number(member(job, "held_ms")))
		snprintf(held, sizeof held, ", in which writers waited for %s",
			 latency_text(text, number_of(job, "held_ms") * 1e6));
	if (ret == CTL_OK && wait) {
		printf("%s done after %s%s\n", text_of(job, "kind"),
		       duration_text(text, number_of(job, "seconds")), held);
		if (number_of(job, "bad_blocks") > 0)
			ret = blocks_are_lost(text_of(job, "cache"), number_of(job, "bad_blocks"));
	} else if (ret == CTL_OK)
		printf("%s has begun: job %.0f\n", text_of(job, "kind"), number_of(job, "id"));
	json_decref(job);
	return ret;
}

static int plain_job(int argc, char **argv, const char *name, const char *path)
{
	const char *socket = online_socket(&argc, argv);
	bool wait = take_word(&argc, argv, "--wait");

	if (!socket)
		return CTL_USAGE;
	if (argc > 1)
		return misused("%s: '%s' is too much", name, argv[1]);
	return run_job(socket, path, NULL, wait);
}

int command_drain_either(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--offline") == 0)
			return command_drain(argc, argv);
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "cache=", 6) == 0 || strncmp(argv[i], "backing=", 8) == 0 ||
		    strncmp(argv[i], "volume=", 7) == 0)
			return misused("drain: %s: to write back what no server serves give --offline as "
				       "well; a server knows its stores",
				       argv[i]);
	return plain_job(argc, argv, "drain", "/v1/drain");
}

int command_detach(int argc, char **argv)
{
	return plain_job(argc, argv, "detach", "/v1/cache/detach");
}

/* --- attach --- */

struct attach {
	bool wait;
	const char *path;
	const char *format; /* NULL: not given */
	u64 segment_bytes;  /* 0: not given */
};

static int parse_attach(int argc, char **argv, struct attach *a)
{
	static const struct option options[] = {
		{"wait", no_argument, NULL, 'w'},
		{"format", required_argument, NULL, 'f'},
		{"segment-size", required_argument, NULL, 'z'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'w':
			a->wait = true;
			break;
		case 'f':
			a->format = optarg;
			break;
		case 'z':
			if (!parse_size(optarg, &a->segment_bytes) || !a->segment_bytes)
				return misused("--segment-size=%s: must be a size in bytes, or with a "
					       "suffix such as K or M",
					       optarg);
			break;
		default:
			return misused_option("attach", argv);
		}
	}
	if (argc - optind != 1)
		return misused("attach: give one CACHE");
	a->path = argv[optind];
	return CTL_OK;
}

int command_attach(int argc, char **argv)
{
	const char *socket = online_socket(&argc, argv);
	struct attach a = {0};
	char *path;
	json_t *body;
	int ret;

	if (!socket)
		return CTL_USAGE;
	ret = parse_attach(argc, argv, &a);
	if (ret != CTL_OK)
		return ret;
	path = realpath(a.path, NULL); /* the server has another folder */
	if (!path)
		return fail("attach: %s: %s", a.path,
			    errno == ENOENT ?
				    "does not exist: check the path; a file has to be made first, see "
				    "logcachectl format --size" :
				    strerror(errno));
	body = json_pack("{s:s}", "path", path);
	if (!body) {
		free(path);
		return fail("%s: the path must be UTF-8", a.path);
	}
	free(path);
	if (a.format)
		json_object_set_new(body, "format", json_string(a.format));
	if (a.segment_bytes)
		json_object_set_new(body, "segment-size", json_integer((json_int_t)a.segment_bytes));
	ret = run_job(socket, "/v1/cache/attach", body, a.wait);
	json_decref(body);
	return ret;
}
