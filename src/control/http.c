/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http.c - see http.h.
 *
 * libmicrohttpd calls on_request() several times for each request: once when the headers are there, once for
 * each piece of the body, once at its end, and once more when a suspended connection is resumed. An
 * exchange goes along and remembers how far it is.
 */
#include "http.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "json.h"
#include "logcache/rt.h"

/*
 * So much of a body that is too large is thrown away before the connection is cut instead: many clients do not read
 * an answer before they have sent everything.
 */
#define SWALLOW_MAX_BYTES (1u << 20)

/* One connection, for choosing one to be closed. All in the thread of the server. */
struct peer {
	int fd;		/* -1: this place is free */
	u64 quiet_ns;	/* since when it has had no complete request */
	bool suspended; /* the worker is busy with it */
};

struct http {
	struct MHD_Daemon *daemon;
	const struct route *routes;
	struct control *control;
	struct worker *worker;
	bool read_only;
	struct peer peers[HTTP_CONNECTIONS_MAX];
	unsigned nr_peers;
};

enum progress {
	READING, /* the body */
	HANDED,	 /* to a handler: there is an answer, or the worker is to go on */
	WAITING, /* suspended */
};

struct exchange {
	struct work work; /* first: see go_on() */
	struct http *http;
	struct MHD_Connection *connection;
	struct peer *peer;
	const struct route *route; /* NULL: answered with an error */
	const char *rest;
	char *path; /* copy of it */
	enum progress progress;
	void (*go_on)(struct exchange *x);
	void *kept;

	char *body;
	size_t body_bytes, swallowed_bytes;
	json_t *json;

	unsigned status; /* 0: no answer yet */
	const char *type;
	char allow[32]; /* 405: what would be right */
	char *answer;
	size_t answer_bytes;
};

/* --- what handlers use --- */

struct control *exchange_control(struct exchange *x)
{
	return x->http->control;
}

const char *exchange_rest(struct exchange *x)
{
	return x->rest;
}

const char *exchange_query(struct exchange *x)
{
	return MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, x->route->query);
}

void exchange_keep(struct exchange *x, void *data)
{
	x->kept = data;
}

void *exchange_kept(struct exchange *x)
{
	return x->kept;
}

void exchange_text(struct exchange *x, char *text, size_t n, const char *type)
{
	if (!text) {
		exchange_error(x, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
		return;
	}
	x->status = MHD_HTTP_OK;
	x->type = type;
	x->answer = text;
	x->answer_bytes = n;
}

void exchange_json(struct exchange *x, unsigned status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
	size_t n = text ? strlen(text) : 0;

	json_decref(json);
	if (text)
		text[n] = '\n'; /* in place of the NUL: nobody needs that */
	x->status = text ? status : MHD_HTTP_INTERNAL_SERVER_ERROR;
	x->type = "application/json";
	x->answer = text;
	x->answer_bytes = text ? n + 1 : 0;
}

void exchange_error(struct exchange *x, unsigned status, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	exchange_json(x, status, json_pack("{s:o}", "error", json_text(text)));
}

void exchange_later(struct exchange *x, void (*go_on)(struct exchange *x))
{
	x->go_on = go_on;
}

json_t *exchange_body(struct exchange *x)
{
	json_error_t e;

	if (!x->body_bytes) {
		x->json = json_object();
	} else {
		x->json = json_loadb(x->body, x->body_bytes, JSON_REJECT_DUPLICATES, &e);
		if (!x->json) {
			exchange_error(x, MHD_HTTP_BAD_REQUEST, "not JSON: line %d, column %d: %s",
				       e.line, e.column, e.text);
			return NULL;
		}
	}
	if (!json_is_object(x->json)) {
		exchange_error(x, MHD_HTTP_BAD_REQUEST, "not a JSON object: must be {...}");
		return NULL;
	}
	return x->json;
}

/* --- finding the route --- */

static bool method_fits(const struct route *r, const char *method)
{
	return strcmp(r->method, method) == 0 ||
	       (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

/* What of PATH is behind the route's; NULL: it is another one. */
static const char *path_fits(const struct route *r, const char *path)
{
	size_t n = strlen(r->path);

	if (strncmp(r->path, path, n) != 0 || (r->path[n - 1] != '/' && path[n]))
		return NULL;
	return path + n;
}

static void find_route(struct exchange *x, const char *method)
{
	for (const struct route *r = x->http->routes; r->path; r++) {
		const char *rest = path_fits(r, x->path);

		if (!rest || (x->http->read_only && !r->read_only))
			continue;
		if (!method_fits(r, method)) {
			size_t n = strlen(x->allow);

			snprintf(x->allow + n, sizeof x->allow - n, "%s%s", n ? ", " : "", r->method);
			continue;
		}
		x->route = r;
		x->rest = rest;
		return;
	}
	if (x->allow[0])
		exchange_error(x, MHD_HTTP_METHOD_NOT_ALLOWED, "%s: no such method for %s", method,
			       x->path);
	else
		exchange_error(x, MHD_HTTP_NOT_FOUND, "%s: there is no such path%s", x->path,
			       x->http->read_only ? " on this port" : "");
}

/* A parameter that is misspelt shall not be ignored. */
static enum MHD_Result check_query(void *arg, enum MHD_ValueKind kind, const char *key,
				   const char *value)
{
	struct exchange *x = arg;

	(void)kind;
	(void)value;
	if (x->route->query && strcmp(key, x->route->query) == 0)
		return MHD_YES;
	exchange_error(x, MHD_HTTP_BAD_REQUEST, "%s: there is no such parameter", key);
	return MHD_NO;
}

/* --- the life of an exchange --- */

static struct peer *peer_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static u64 content_length(struct MHD_Connection *connection)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text ? strtoull(text, NULL, 10) : 0; /* libmicrohttpd has refused what is no number */
}

static void too_large(struct exchange *x)
{
	exchange_error(x, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large: at most %u bytes",
		       HTTP_BODY_MAX_BYTES);
}

static enum MHD_Result send_answer(struct exchange *x)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(x->answer_bytes, x->answer,
								 MHD_RESPMEM_MUST_FREE);
	enum MHD_Result ret;

	if (!r)
		return MHD_NO;
	x->answer = NULL;
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, x->type);
	MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (x->status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, x->allow);
	ret = MHD_queue_response(x->connection, x->status, r);
	MHD_destroy_response(r);
	return ret;
}

static struct exchange *begin(struct http *h, struct MHD_Connection *connection, const char *url,
			      const char *method)
{
	struct exchange *x = calloc(1, sizeof *x);

	if (!x)
		return NULL;
	x->http = h;
	x->connection = connection;
	x->peer = peer_of(connection);
	x->path = strdup(url);
	if (!x->path) {
		free(x);
		return NULL;
	}
	find_route(x, method);
	if (x->route)
		MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, check_query, x);
	return x;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode code)
{
	struct exchange *x = *context;

	(void)arg;
	(void)connection;
	(void)code; /* whoever went away has missed the answer */
	if (!x)
		return;
	if (x->peer)
		x->peer->quiet_ns = lc_now_ns();
	json_decref(x->json);
	free(x->kept);
	free(x->answer);
	free(x->body);
	free(x->path);
	free(x);
	*context = NULL;
}

/* A piece of the body. False: cut the connection. */
static bool take(struct exchange *x, const char *data, size_t n)
{
	char *larger;

	if (x->status || x->body_bytes + n > HTTP_BODY_MAX_BYTES) {
		if (!x->status)
			too_large(x);
		x->swallowed_bytes += n;
		return x->swallowed_bytes <= SWALLOW_MAX_BYTES;
	}
	larger = realloc(x->body, x->body_bytes + n);
	if (!larger)
		return false;
	x->body = larger;
	memcpy(x->body + x->body_bytes, data, n);
	x->body_bytes += n;
	return true;
}

/* The worker's thread. */
static void go_on(struct work *work, bool stopping)
{
	struct exchange *x = (struct exchange *)work;

	if (stopping)
		exchange_error(x, MHD_HTTP_SERVICE_UNAVAILABLE, "the server is shutting down");
	else
		x->go_on(x);
	MHD_resume_connection(x->connection); /* the daemon's thread may release X from now on */
}

static void suspend(struct exchange *x)
{
	int rc;

	x->progress = WAITING;
	x->work.run = go_on;
	x->peer->suspended = true;
	MHD_suspend_connection(x->connection);
	rc = worker_do(x->http->worker, &x->work);
	if (rc == 0)
		return;
	exchange_error(x, MHD_HTTP_SERVICE_UNAVAILABLE, "%s",
		       rc == -EAGAIN ? "too many requests wait for a disk already" :
				       "the server is shutting down");
	MHD_resume_connection(x->connection);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *n, void **context)
{
	struct http *h = arg;
	struct exchange *x = *context;

	(void)version;
	if (!x) {
		x = *context = begin(h, connection, url, method);
		if (!x)
			return MHD_NO;
		/* Said at once: who has announced far too much need not send it. */
		if (content_length(connection) > SWALLOW_MAX_BYTES) {
			free(x->answer);
			too_large(x);
			return send_answer(x);
		}
		return MHD_YES;
	}
	if (*n) {
		if (!take(x, data, *n))
			return MHD_NO;
		*n = 0;
		return MHD_YES;
	}
	if (x->progress == READING && !x->status) {
		x->progress = HANDED;
		x->route->handle(x);
		if (x->go_on) {
			suspend(x);
			return MHD_YES;
		}
	}
	x->peer->suspended = false;
	return send_answer(x);
}

/* --- connections --- */

/* Few places are left: make room. */
static void close_quietest(struct http *h)
{
	struct peer *quietest = NULL;

	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		struct peer *p = &h->peers[i];

		if (p->fd != -1 && !p->suspended && (!quietest || p->quiet_ns < quietest->quiet_ns))
			quietest = p;
	}
	/* libmicrohttpd sees the end of its input, and closes it. */
	if (quietest) {
		shutdown(quietest->fd, SHUT_RDWR);
		quietest->quiet_ns = UINT64_MAX; /* not this one again */
	}
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *h = arg;
	struct peer *p = *context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (p)
			p->fd = -1;
		h->nr_peers -= p != NULL;
		return;
	}
	if (h->nr_peers >= HTTP_CONNECTIONS_MAX - HTTP_CONNECTIONS_SPARE)
		close_quietest(h);
	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		p = &h->peers[i];
		if (p->fd != -1)
			continue;
		p->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		p->quiet_ns = lc_now_ns();
		p->suspended = false;
		h->nr_peers++;
		*context = p;
		return;
	}
}

/* What libmicrohttpd complains of is mostly clients that went away. */
static void on_message(void *arg, const char *fmt, va_list args)
{
	char line[256];

	(void)arg;
	vsnprintf(line, sizeof line, fmt, args);
	line[strcspn(line, "\n")] = '\0';
	lc_log(LC_LOG_DEBUG, "control: %s", line);
}

/* The new thread inherits the mask: signals are nbdkit's affair. */
static struct MHD_Daemon *start_daemon(struct http *h, int listen_fd)
{
	struct MHD_Daemon *daemon;
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
					  MHD_USE_ERROR_LOG,
				  0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER,
				  on_message, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd,
				  MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
				  MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
				  MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS_MAX,
				  MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_S,
				  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEAD_MAX_BYTES,
				  MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return daemon;
}

int http_start(struct http **out, int listen_fd, bool read_only, const struct route *routes,
	       struct control *c, struct worker *w)
{
	struct http *h = calloc(1, sizeof *h);

	if (!h)
		return -ENOMEM;
	*h = (struct http){.routes = routes, .control = c, .worker = w, .read_only = read_only};
	for (unsigned i = 0; i < HTTP_CONNECTIONS_MAX; i++)
		h->peers[i].fd = -1;
	errno = 0;
	h->daemon = start_daemon(h, listen_fd);
	if (!h->daemon) {
		free(h);
		return errno ? -errno : -EIO;
	}
	*out = h;
	return 0;
}

void http_stop(struct http *h)
{
	MHD_stop_daemon(h->daemon);
	free(h);
}
