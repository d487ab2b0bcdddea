/* SPDX-License-Identifier: BSD-3-Clause */
/* Which URIs are refused before anybody tries to connect, and why; and that no password is repeated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "nbd.h"

static void test_what_is_a_uri(void **state)
{
	(void)state;
	assert_true(lc_is_uri("nbd://host"));
	assert_true(lc_is_uri("x://"));
	assert_false(lc_is_uri("/dev/sda"));
	assert_false(lc_is_uri("./nbd://host")); /* a file of that name */
	assert_false(lc_is_uri("://host"));
	assert_false(lc_is_uri(""));
}

static void test_good(void **state)
{
	static const char *const uris[] = {
		"nbd://host",
		"NBD://host:10809/export",
		"nbd://[::1]/",
		"nbds://alice@host/disk?tls-certificates=/etc/pki&x=y",
		"nbds://host/?tls-psk-file=%2Fetc/keys",
		"nbd+unix:///?socket=/run/x.sock",
		"nbd+unix:///disk%20one?socket=%2frun/x.sock",
		"nbds+unix://alice@/?tls-psk-file=/k;socket=/s#here",
		"nbd+vsock://2:10809/export",
		"nbds+vsock://2",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof uris / sizeof *uris; i++) {
		struct lc_error err = {""};

		if (lc_nbd_check_uri(uris[i], &err))
			fail_msg("%s: %s", uris[i], err.text);
	}
}

static void test_bad(void **state)
{
	static const struct {
		const char *uri, *says;
	} bad[] = {
		{"http://host/", "nbd://"},
		{"nbdx://host/", "nbd://"},
		{"nb://host/", "nbd://"},
		{"nbd+tcp://host", "nbd://"},
		{"nbd://", "host"},
		{"nbd:///export", "host"},
		{"nbds://alice@/export", "host"},
		{"nbd://ho st/", "space"},
		{"nbd://host/\n", "space"},
		{"nbd+unix:///export", "socket"},
		{"nbd+unix:///?sockets=/x", "socket"},
		{"nbd+unix:///?socket=", "slash"},
		{"nbd+unix:///?socket=&x=/y", "slash"},
		{"nbd+unix:///?socket=x.sock", "slash"},
		{"nbd+unix:///?socket=%2", "slash"},
		{"nbd+unix://x.sock?socket=/x", "three slashes"},
		{"nbds://host/?tls-psk-file=keys", "slash"},
		{"nbds://host/?x=y;TLS-certificates=keys", "slash"},
		{"nbds://alice:secret@host/", "password"},
		{"nbds+unix://alice:secret@/?socket=/s", "password"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lc_error err = {""};

		assert_int_equal(lc_nbd_check_uri(bad[i].uri, &err), -22);
		if (!strstr(err.text, bad[i].says))
			fail_msg("%s: %s", bad[i].uri, err.text);
		assert_null(strstr(err.text, "secret"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_a_uri),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
