/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * http.h - one request to a running server, over its control socket.
 */
#ifndef LC_CTL_HTTP_H
#define LC_CTL_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Ask the server whose control socket is SOCKET. BODY may be NULL; *ANSWER is the caller's. False: there is no server,
 * or it says no; then standard error has the reason.
 */
bool http_ask(const char *socket, const char *method, const char *path, json_t *body,
	      json_t **answer);

/* The same, without a word: the reason is in TEXT, which has room for N bytes. */
bool http_ask_quietly(const char *socket, const char *method, const char *path, json_t *body,
		      json_t **answer, char *text, size_t n);

#endif
