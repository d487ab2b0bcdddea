/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rings.c - rings that any thread may borrow (rings.h): the free lists, and a batch of reads on io_uring or libaio.
 *
 * Nothing but reads goes through them, and nothing is left in one when it is put back: a batch is sent and waited for
 * in one call, which is one system call with io_uring and two with libaio, if all goes well.
 *
 * No IORING_SETUP_SINGLE_ISSUER: the owner changes. Nor are files registered: whose they are changes as well, and to
 * look one up costs nothing beside a read.
 */
#include <libaio.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>

#include "file_priv.h"
#include "rings.h"

/* Of each kind. nbdkit has 16 threads for each connection. */
#define RINGS_MAX 64u

struct lc_ring {
	struct lc_ring *next; /* in the list of free ones */
	unsigned kind;
	struct io_uring uring;
	io_context_t context;
};

/* One kind. */
struct pool {
	struct lc_ring *free;
	unsigned nr;	/* free or in use */
	bool exhausted; /* one could not be made: that would cost each read the same vain attempt */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for all that follows */
static struct pool pools[] = {[LC_RING_URING] = {0}, [LC_RING_AIO] = {0}};
static unsigned nr_users;

/* --- a batch --- */

static int read_uring(struct io_uring *ring, int fd, struct lc_ring_read *reads, u32 nr)
{
	struct io_uring_cqe *cqe;
	unsigned head, n;
	int rc;

	for (u32 i = 0; i < nr; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		assert(sqe); /* it was empty */
		io_uring_prep_read(sqe, fd, reads[i].buf, reads[i].len_bytes, reads[i].offset_bytes);
		io_uring_sqe_set_data(sqe, &reads[i]);
	}
	while (nr) {
		rc = io_uring_submit_and_wait(ring, nr);
		n = 0;
		io_uring_for_each_cqe(ring, head, cqe)
		{
			struct lc_ring_read *read = io_uring_cqe_get_data(cqe);

			read->result = cqe->res;
			n++;
		}
		io_uring_cq_advance(ring, n);
		nr -= n;
		if (rc >= 0 || rc == -EINTR)
			continue; /* what it did not take stays in the ring, for the next turn */
		if (nr && nr == io_uring_sq_ready(ring))
			return rc;
		/* Completions of what is in flight come without being asked for: this only waits. */
		lc_file_nap();
	}
	return 0;
}

static int read_aio(io_context_t context, int fd, struct lc_ring_read *reads, u32 nr)
{
	struct iocb cbs[LC_RING_DEPTH], *list[LC_RING_DEPTH];
	struct io_event events[LC_RING_DEPTH];
	u32 sent = 0, done = 0;
	int rc;

	for (u32 i = 0; i < nr; i++) {
		list[i] = &cbs[i];
		io_prep_pread(&cbs[i], fd, reads[i].buf, reads[i].len_bytes,
			      (long long)reads[i].offset_bytes);
		cbs[i].data = &reads[i];
	}
	while (done < nr) {
		rc = sent < nr ? io_submit(context, nr - sent, list + sent) : 0;
		if (rc > 0)
			sent += (u32)rc;
		else if (sent == done && rc != -EINTR)
			return rc ? rc : -EAGAIN;
		if (sent == done)
			continue;
		rc = io_getevents(context, sent - done, LC_RING_DEPTH, events, NULL);
		for (int i = 0; i < rc; i++) {
			struct lc_ring_read *read = events[i].data;

			read->result = (int64_t)(long)events[i].res;
		}
		if (rc > 0)
			done += (u32)rc;
		else if (rc != -EINTR)
			lc_file_nap(); /* we cannot leave: the kernel writes to their memory */
	}
	return 0;
}

int lc_ring_read(struct lc_ring *ring, int fd, struct lc_ring_read *reads, u32 nr)
{
	assert(nr <= LC_RING_DEPTH);
	for (u32 i = 0; i < nr; i++)
		reads[i].result = LC_RING_UNSENT;
	return ring->kind == LC_RING_AIO ? read_aio(ring->context, fd, reads, nr) :
					   read_uring(&ring->uring, fd, reads, nr);
}

/* --- making them --- */

static int create_uring(struct io_uring *ring)
{
	static const unsigned flags[] = {
		/* 5.19 */ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
		/* 5.11, as for queues */ 0,
	};
	int rc = -EINVAL;

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]) && rc == -EINVAL; i++) {
		struct io_uring_params p = {.flags = flags[i]};

		rc = io_uring_queue_init_params(LC_RING_DEPTH, ring, &p);
	}
	if (rc)
		return rc;
	/* A filter may let us make rings, and not use them: better to know now. */
	rc = io_uring_submit_and_get_events(ring);
	if (rc < 0)
		io_uring_queue_exit(ring);
	return rc < 0 ? rc : 0;
}

/* Why there is none says, if anything, the store's queue, which comes first. */
static struct lc_ring *create(unsigned kind)
{
	struct lc_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->kind = kind;
	if ((kind == LC_RING_AIO ? io_setup((int)LC_RING_DEPTH, &ring->context) :
				   create_uring(&ring->uring)) == 0)
		return ring;
	free(ring);
	return NULL;
}

static void destroy(struct lc_ring *ring)
{
	if (ring->kind == LC_RING_AIO)
		(void)io_destroy(ring->context); /* it can only fail for one that does not exist */
	else
		io_uring_queue_exit(&ring->uring);
	free(ring);
}

/* --- the lists --- */

void lc_rings_use(void)
{
	pthread_mutex_lock(&lock);
	nr_users++;
	pthread_mutex_unlock(&lock);
}

static void drop(struct pool *p)
{
	while (p->free) {
		struct lc_ring *ring = p->free;

		p->free = ring->next;
		destroy(ring);
		p->nr--;
	}
	assert(p->nr == 0);
	p->exhausted = false;
}

void lc_rings_unuse(void)
{
	pthread_mutex_lock(&lock);
	assert(nr_users > 0);
	if (--nr_users == 0) {
		drop(&pools[LC_RING_URING]);
		drop(&pools[LC_RING_AIO]);
	}
	pthread_mutex_unlock(&lock);
}

static struct lc_ring *take(unsigned kind)
{
	struct pool *p = &pools[kind];
	struct lc_ring *ring;
	bool make;

	pthread_mutex_lock(&lock);
	ring = p->free;
	make = !ring && !p->exhausted && p->nr < RINGS_MAX;
	if (ring)
		p->free = ring->next;
	p->nr += make;
	pthread_mutex_unlock(&lock);
	if (!make)
		return ring;
	ring = create(kind);
	if (ring)
		return ring;
	pthread_mutex_lock(&lock);
	p->nr--;
	p->exhausted = true;
	pthread_mutex_unlock(&lock);
	return NULL;
}

struct lc_ring *lc_ring_take(unsigned kinds)
{
	struct lc_ring *ring = kinds & LC_RING_URING ? take(LC_RING_URING) : NULL;

	return !ring && kinds & LC_RING_AIO ? take(LC_RING_AIO) : ring;
}

void lc_ring_put(struct lc_ring *ring, bool broken)
{
	struct pool *p;

	if (!ring)
		return;
	p = &pools[ring->kind];
	if (broken)
		destroy(ring);
	pthread_mutex_lock(&lock);
	if (broken) {
		p->nr--;
	} else {
		ring->next = p->free;
		p->free = ring;
	}
	pthread_mutex_unlock(&lock);
}
