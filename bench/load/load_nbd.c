/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_nbd.c - requests over NBD with libnbd's asynchronous calls.
 *
 * A completion callback runs inside nbd_poll and may not make calls on the handle: it puts the slot on a list, and the
 * loop takes it from there.
 */
#include "load.h"

#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

struct connection {
	struct nbd_handle *nbd;
	struct load_slot *completed;
	u32 in_flight;
};

static u64 open_nbd(struct load_worker *w)
{
	struct connection *c = load_alloc(1, sizeof(*c));
	int64_t size;

	w->engine = c;
	c->nbd = nbd_create();
	if (!c->nbd || nbd_set_opt_mode(c->nbd, false) < 0 ||
	    nbd_set_strict_mode(c->nbd, 0) < 0 || /* the server checks */
	    nbd_set_uri_allow_local_file(c->nbd, true) < 0 ||
	    nbd_connect_uri(c->nbd, w->load->options.target) < 0)
		load_die("%s: %s", w->load->options.target, nbd_get_error());
	size = nbd_get_size(c->nbd);
	if (size < 0)
		load_die("%s: %s", w->load->options.target, nbd_get_error());
	return (u64)size;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is libnbd's */
static int on_completion(void *slot, int *error)
{
	struct load_slot *s = slot;
	struct connection *c = s->worker->engine;

	if (*error)
		load_die("%s: %s", s->worker->load->options.target, strerror(*error));
	load_done(s->worker, s);
	c->in_flight--;
	s->next = c->completed;
	c->completed = s;
	return 1; /* retire it */
}

static void submit(struct connection *c, struct load_slot *s)
{
	nbd_completion_callback done = {.callback = on_completion, .user_data = s};
	u32 bytes = s->worker->load->options.block_bytes;
	int64_t cookie = -1;

	c->in_flight++;
	switch (s->op) {
	case LOAD_READ:
		cookie = nbd_aio_pread(c->nbd, s->buffer, bytes, s->offset_bytes, done, 0);
		break;
	case LOAD_WRITE:
		cookie = nbd_aio_pwrite(c->nbd, s->buffer, bytes, s->offset_bytes, done,
					s->fua ? LIBNBD_CMD_FLAG_FUA : 0);
		break;
	case LOAD_FLUSH:
		cookie = nbd_aio_flush(c->nbd, done, 0);
		break;
	case NR_LOAD_OPS:
		break;
	}
	if (cookie < 0)
		load_die("%s: %s", s->worker->load->options.target, nbd_get_error());
}

static void run_nbd(struct load_worker *w)
{
	struct connection *c = w->engine;

	for (u32 i = 0; i < w->load->options.depth; i++) {
		w->slots[i].next = c->completed;
		c->completed = &w->slots[i];
	}
	for (;;) {
		while (c->completed) {
			struct load_slot *s = c->completed;

			c->completed = s->next;
			if (load_next(w, s))
				submit(c, s);
		}
		if (!c->in_flight)
			return;
		if (nbd_poll(c->nbd, -1) < 0)
			load_die("%s: %s", w->load->options.target, nbd_get_error());
	}
}

static void close_nbd(struct load_worker *w)
{
	struct connection *c = w->engine;

	nbd_shutdown(c->nbd, 0);
	nbd_close(c->nbd);
	free(c);
}

const struct load_engine load_nbd = {open_nbd, run_nbd, close_nbd};
