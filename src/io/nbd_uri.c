/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_uri.c - is this the URI of an NBD server? See nbd.h.
 *
 * libnbd parses it; what is checked here is what libnbd would say too late, or not clearly enough: paths that mean something
 * else once nbdkit has gone into the background, and secrets.
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "nbd.h"

bool lc_is_uri(const char *text)
{
	const char *colon = strstr(text, "://");

	return colon && colon > text && strcspn(text, "/") > (size_t)(colon - text);
}

static int hex(int c)
{
	return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

/* The first character of a value in the query, decoded; 0 if it has none. */
static int first_of(const char *value)
{
	if (*value == '%' && hex((unsigned char)value[1]) >= 0 && hex((unsigned char)value[2]) >= 0)
		return hex((unsigned char)value[1]) * 16 + hex((unsigned char)value[2]);
	return *value == '&' || *value == ';' || *value == '#' ? 0 : (unsigned char)*value;
}

/* Paths in the query: NAME=/...; *HAS_SOCKET: there is a socket. */
static int check_query(const char *query, bool *has_socket, struct lc_error *err)
{
	static const char *const paths[] = {"socket=", "tls-certificates=", "tls-psk-file="};

	*has_socket = false;
	while (*query) {
		for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
			size_t n = strlen(paths[i]);

			if (strncasecmp(query, paths[i], n) != 0)
				continue;
			if (first_of(query + n) != '/')
				return lc_fail(err, -EINVAL,
					       "the path behind %s must begin with a slash: the server works "
					       "in another folder later",
					       paths[i]);
			*has_socket |= i == 0;
		}
		query += strcspn(query, "&;#");
		if (*query == '#')
			break;
		query += *query != '\0';
	}
	return 0;
}

int lc_nbd_check_uri(const char *uri, struct lc_error *err)
{
	static const char *const schemes[] = {"nbd",	   "nbds",	"nbd+unix",
					      "nbds+unix", "nbd+vsock", "nbds+vsock"};
	const char *colon = strstr(uri, "://"), *authority = colon ? colon + 3 : uri, *query, *at;
	size_t authority_len = strcspn(authority, "/?#");
	bool known = false, is_unix, has_socket;
	int rc;

	for (unsigned i = 0; colon && i < sizeof schemes / sizeof *schemes; i++)
		known |= strlen(schemes[i]) == (size_t)(colon - uri) &&
			 strncasecmp(uri, schemes[i], (size_t)(colon - uri)) == 0;
	if (!known)
		return lc_fail(err, -EINVAL,
			       "it must begin with nbd://, nbds://, nbd+unix://, nbds+unix://, "
			       "nbd+vsock:// or nbds+vsock:// (a file of such a name is ./NAME)");
	for (const char *p = uri; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return lc_fail(err, -EINVAL,
				       "it has a space or control character in it: write it as %%20, or "
				       "whatever it is");
	at = memchr(authority, '@', authority_len);
	if (at && memchr(authority, ':', (size_t)(at - authority)))
		return lc_fail(err, -EINVAL,
			       "it has a password in it, which NBD has no use for, and others can see: leave "
			       "it out; keys for TLS are named by tls-psk-file= or tls-certificates=");
	query = strchr(authority, '?');
	rc = check_query(query ? query + 1 : "", &has_socket, err);
	if (rc)
		return rc;
	is_unix = colon - uri > 4 && strncasecmp(colon - 4, "unix", 4) == 0;
	if (is_unix && !has_socket)
		return lc_fail(err, -EINVAL,
			       "the path of the socket is missing: it is nbd+unix:///EXPORT?socket=/PATH");
	if (is_unix && authority_len && !at)
		return lc_fail(err, -EINVAL,
			       "there is a host name where none belongs: it is "
			       "nbd+unix:///EXPORT?socket=/PATH, with three slashes");
	if (!is_unix && (at ? (size_t)(at + 1 - authority) == authority_len : !authority_len))
		return lc_fail(err, -EINVAL,
			       "the name of the host is missing: it is nbd://HOST/EXPORT");
	return 0;
}
