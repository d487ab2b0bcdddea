/* SPDX-License-Identifier: BSD-3-Clause */
/* http.c - see http.h. */
#include "http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

/* A server answers at once; only a flush, or keeping settings, may have to wait for an SSD. */
#define CONNECT_TIMEOUT_S 5L
#define TIMEOUT_S 120L

struct buffer {
	char *data;
	size_t n;
};

static size_t take(char *data, size_t size, size_t nr, void *arg)
{
	struct buffer *b = arg;
	size_t n = size * nr;
	char *larger = realloc(b->data, b->n + n + 1);

	if (!larger)
		return 0;
	b->data = larger;
	memcpy(b->data + b->n, data, n);
	b->n += n;
	b->data[b->n] = '\0';
	return n;
}

/* What curl says of a socket is about URLs, and nobody gave one. */
static void no_answer(CURLcode rc, const char *socket, char *text, size_t n)
{
	if (rc == CURLE_COULDNT_CONNECT)
		snprintf(text, n,
			 "no server answers at %s: is one running with control=%s, and may you "
			 "connect to it?",
			 socket, socket);
	else
		snprintf(text, n, "%s: %s", socket, curl_easy_strerror(rc));
}

static bool understand(const struct buffer *b, long status, const char *socket, json_t **answer,
		       char *text, size_t n)
{
	const char *reason;

	*answer = json_loadb(b->data ? b->data : "", b->n, 0, NULL);
	if (!*answer) {
		snprintf(text, n, "%s: this is not a logcache: its answer is not JSON", socket);
		return false;
	}
	if (status >= 200 && status < 300)
		return true;
	reason = json_string_value(json_object_get(*answer, "error"));
	if (reason)
		snprintf(text, n, "%s", reason);
	else
		snprintf(text, n, "%s: status %ld", socket, status);
	json_decref(*answer);
	*answer = NULL;
	return false;
}

bool http_ask_quietly(const char *socket, const char *method, const char *path, json_t *body,
		      json_t **answer, char *text, size_t n)
{
	char *sent = body ? json_dumps(body, JSON_COMPACT) : NULL;
	CURL *curl = curl_easy_init();
	struct buffer b = {0};
	long status = 0;
	char url[1024];
	CURLcode rc;
	bool ok = false;

	*answer = NULL;
	if (!curl || (body && !sent)) {
		snprintf(text, n, "no memory");
		goto out;
	}
	snprintf(url, sizeof url, "http://logcache%s", path);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &b);
	if (sent)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, sent);
	rc = curl_easy_perform(curl);
	if (rc != CURLE_OK) {
		no_answer(rc, socket, text, n);
		goto out;
	}
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	ok = understand(&b, status, socket, answer, text, n);
out:
	curl_easy_cleanup(curl);
	free(b.data);
	free(sent);
	return ok;
}

bool http_ask(const char *socket, const char *method, const char *path, json_t *body, json_t **answer)
{
	char text[1024];

	if (http_ask_quietly(socket, method, path, body, answer, text, sizeof text))
		return true;
	fail("%s", text);
	return false;
}
