/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http.h - requests and answers of HTTP/1.1, through libmicrohttpd. What they mean is api.h's affair.
 *
 * One thread for each listening socket takes all its connections in turn, so a handler may not wait for
 * anything but short locks. One that has to says exchange_later(): the connection is suspended, and the worker goes on.
 *
 * Limits, so that nobody can use up the server or lock others out:
 *
 *	request line and headers	HTTP_HEAD_MAX_BYTES: 414 or 431, by libmicrohttpd
 *	body				HTTP_BODY_MAX_BYTES: 413
 *	a connection on which nothing happens		closed after HTTP_IDLE_S
 *	connections			HTTP_CONNECTIONS_MAX; when few are left, the one that has been without a complete
 *					request for longest is closed, be it idle or a client that sends, or reads,
 *					a byte now and then. So those who do ask always get through.
 */
#ifndef LC_CONTROL_HTTP_H
#define LC_CONTROL_HTTP_H

#include <jansson.h>

#include "logcache/types.h"
#include "worker.h"

#define HTTP_HEAD_MAX_BYTES 16384u
#define HTTP_BODY_MAX_BYTES 65536u
#define HTTP_CONNECTIONS_MAX 64u
#define HTTP_CONNECTIONS_SPARE 8u
#define HTTP_IDLE_S 10u

struct control;
struct exchange;

/* One thing that can be asked for. */
struct route {
	const char *method; /* "GET" means HEAD as well */
	const char *path;   /* one that ends in "/" stands for everything below */
	bool read_only;	    /* also over TCP */
	const char *query;  /* the one parameter that it knows; NULL: none */
	/* Called when the request is complete; it calls one of the answers below. The daemon's thread: never waits. */
	void (*handle)(struct exchange *x);
};

struct http; /* one listening socket and its thread */

/*
 * Serve the connections to LISTEN_FD, which becomes the server's on success. ROUTES ends with a path of NULL. The worker may be
 * NULL where no route uses it. 0 or -errno.
 */
int http_start(struct http **out, int listen_fd, bool read_only, const struct route *routes,
	       struct control *c, struct worker *w);
/* The worker has been stopped before. */
void http_stop(struct http *h);

/* --- for handlers --- */

struct control *exchange_control(struct exchange *x);
/* What follows the route's path, decoded: "" for the default export of /v1/volumes/. */
const char *exchange_rest(struct exchange *x);
/* The parameter of the query; NULL: not given. */
const char *exchange_query(struct exchange *x);

/*
 * The body: a JSON object, empty if there was no body. NULL: it is none, and the exchange has been answered. It stays
 * the exchange's.
 */
json_t *exchange_body(struct exchange *x);

/* Something for a handler to remember until the worker runs, released with free(). */
void exchange_keep(struct exchange *x, void *data);
void *exchange_kept(struct exchange *x);

/* The answers; each exchange gets exactly one. JSON and TEXT become the exchange's (TEXT: free()). */
void exchange_json(struct exchange *x, unsigned status, json_t *json);
void exchange_text(struct exchange *x, char *text, size_t n, const char *type);
void exchange_error(struct exchange *x, unsigned status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Go on with GO_ON in the worker's thread; it answers. */
void exchange_later(struct exchange *x, void (*go_on)(struct exchange *x));

#endif
