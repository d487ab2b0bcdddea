/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c - see control.h. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "latency.h"
#include "priv.h"

static void release(struct control *c)
{
	unix_socket_close(&c->socket);
	if (c->metrics_fd != -1)
		close(c->metrics_fd);
	latency_fini();
	if (c->started) {
		lc_mutex_destroy(&c->settings_lock);
		jobs_destroy(&c->jobs);
	}
	free(c);
}

int control_listen(const char *socket_path, const char *metrics_address, struct control **out,
		   struct lc_error *err)
{
	struct control *c;
	int rc;

	*out = NULL;
	if (!socket_path && !metrics_address)
		return 0;
	c = calloc(1, sizeof *c);
	if (!c)
		return lc_fail(err, -ENOMEM, "no memory for the control interface");
	c->socket = (struct unix_socket){.fd = -1, .lock_fd = -1};
	c->metrics_fd = -1;
	c->metrics_address = metrics_address;

	rc = latency_init();
	if (rc < 0)
		lc_fail(err, rc, "cannot count latencies: %s", strerror(-rc));
	if (rc == 0 && socket_path)
		rc = unix_socket_open(&c->socket, socket_path, err);
	if (rc == 0 && metrics_address) {
		rc = tcp_listen(metrics_address, err);
		c->metrics_fd = rc < 0 ? -1 : rc;
	}
	if (rc < 0) {
		release(c);
		return rc;
	}
	*out = c;
	return 0;
}

static int start_control(struct control *c, struct lc_error *err)
{
	int rc = worker_start(&c->worker);

	c->worker_runs = rc == 0;
	if (rc == 0)
		rc = http_start(&c->http, c->socket.fd, false, control_routes, c, &c->worker);
	if (rc < 0)
		return lc_fail(err, rc, "control=%s: nobody will answer: %s", c->socket.path,
			       strerror(-rc));
	c->socket.fd = -1;
	lc_log(LC_LOG_INFO, "control interface at %s", c->socket.path);
	return 0;
}

static int start_metrics(struct control *c, struct lc_error *err)
{
	const char *address = c->metrics_address, *colon = strchr(address, ':');
	int rc = http_start(&c->metrics_http, c->metrics_fd, true, control_routes, c, NULL);

	if (rc < 0)
		return lc_fail(err, rc, "metrics=%s: nobody will answer: %s", c->metrics_address,
			       strerror(-rc));
	c->metrics_fd = -1;
	lc_log(LC_LOG_INFO, "metrics at %s%s%s", address[0] == ':' || !colon ? "127.0.0.1" : "",
	       colon ? "" : ":", address);
	return 0;
}

int control_start(struct control *c, const struct control_config *config, struct lc_error *err)
{
	int rc = 0;

	if (!c)
		return 0;
	c->config = *config;
	c->started_ns = lc_now_ns();
	c->started_s = time(NULL);
	lc_mutex_init(&c->settings_lock);
	jobs_init(&c->jobs, &c->config);
	c->started = true;
	if (c->socket.fd != -1)
		rc = start_control(c, err);
	if (rc == 0 && c->metrics_fd != -1)
		rc = start_metrics(c, err);
	return rc;
}

void control_set_phase(struct control *c, enum control_phase phase)
{
	if (c)
		__atomic_store_n(&c->phase, phase, __ATOMIC_RELAXED);
}

void control_finish_jobs(struct control *c, bool drain)
{
	if (c && c->started)
		jobs_finish(&c->jobs, drain);
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	control_finish_jobs(c, false);
	/* Its last requests are resumed before libmicrohttpd ends, and then there are no new ones. */
	if (c->worker_runs)
		worker_stop(&c->worker);
	if (c->http)
		http_stop(c->http);
	if (c->metrics_http)
		http_stop(c->metrics_http);
	if (c->worker_runs)
		worker_destroy(&c->worker);
	release(c);
}

void control_abandon(struct control *c)
{
	if (c)
		unix_socket_abandon(&c->socket);
}
