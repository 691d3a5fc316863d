/* The C part of the chaos test.
 *
 *   chaos serve PORT ID PROCESSES     processes that accept on one blocking socket
 *   chaos poll PORT ID                one process, epoll and sockets that don't block
 *   chaos ask STOP PAUSE TARGET...    requests, one after the other, on blocking sockets
 *   chaos asknb STOP PAUSE TARGET...  the same on sockets that don't block
 *
 * A request is a connection of its own: a number and a line feed there, "ID NUMBER" and a line feed back. A target is
 * HOST:PORT=ID. Twice a second an asker prints "at COUNTER", of right answers; what went wrong as "failed WHY"; and when
 * the file STOP is there, "done TOTAL", and ends. PAUSE is in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 100 /* seconds for one request */

static void die(const char *what)
{
	printf("failed %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

static int listen_on(int port, int flags)
{
	int s = socket(AF_INET, SOCK_STREAM | flags, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1;
	if (s < 0)
		die("socket");
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (struct sockaddr *)&a, sizeof a))
		die("bind");
	if (listen(s, 512))
		die("listen");
	return s;
}

/* Lines are short: they come in one piece. */
static void answer(int c, const char *id)
{
	char line[64], out[128];
	ssize_t n = read(c, line, sizeof line - 1);
	if (n <= 0)
		return;
	line[n] = 0;
	n = snprintf(out, sizeof out, "%s %s", id, line);
	if (write(c, out, n) != n)
		die("write");
}

static void serve(int port, const char *id, int processes)
{
	int s = listen_on(port, 0);
	while (--processes > 0 && fork() > 0)
		;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (;;) {
		struct sockaddr_in peer;
		socklen_t len = sizeof peer;
		int c = accept(s, (struct sockaddr *)&peer, &len);
		if (c < 0)
			die("accept");
		answer(c, id);
		close(c);
	}
}

static void serve_poll(int port, const char *id)
{
	int s = listen_on(port, SOCK_NONBLOCK), e = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = s}, got[64];
	epoll_ctl(e, EPOLL_CTL_ADD, s, &ev);
	for (;;) {
		int n = epoll_wait(e, got, 64, -1);
		for (int i = 0; i < n; i++) {
			int c = got[i].data.fd;
			if (c != s) {
				answer(c, id);
				close(c);
				continue;
			}
			while ((c = accept4(s, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				ev.data.fd = c;
				epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
			}
			if (errno != EAGAIN)
				die("accept4");
		}
	}
}

static char why[256];

static int fail(const char *format, ...)
{
	int e = errno;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(why, sizeof why, format, args);
	va_end(args);
	snprintf(why + n, sizeof why - n, ": %s", strerror(e));
	return -1;
}

static int ready(int s, int events)
{
	struct pollfd p = {.fd = s, .events = events};
	return poll(&p, 1, PATIENCE * 1000) == 1;
}

/* exchange makes one request on a socket. */
static int exchange(int s, int nonblock, const struct addrinfo *to, const char *id, long number)
{
	char out[32], want[96], got[96];
	struct sockaddr_in local, peer;
	socklen_t len = sizeof local;
	if (connect(s, to->ai_addr, to->ai_addrlen)) {
		int error = 0;
		socklen_t size = sizeof error;
		if (!nonblock || errno != EINPROGRESS)
			return fail("connect");
		if (!ready(s, POLLOUT))
			return fail("connect: not ready");
		getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size);
		if ((errno = error))
			return fail("connect, later");
	}
	if (getsockname(s, (struct sockaddr *)&local, &len) || getpeername(s, (struct sockaddr *)&peer, &len))
		return fail("name");
	if (memcmp(&peer.sin_addr, &((struct sockaddr_in *)to->ai_addr)->sin_addr, 4))
		return fail("another peer");
	int n = snprintf(out, sizeof out, "%ld\n", number);
	if (write(s, out, n) != n)
		return fail("write");
	n = snprintf(want, sizeof want, "%s %ld\n", id, number);
	for (int have = 0; have < n;) {
		if (!ready(s, POLLIN))
			return fail("read: not ready");
		ssize_t r = read(s, got + have, sizeof got - have);
		if (r <= 0)
			return fail("read %zd after %d bytes", r, have);
		have += r;
	}
	return memcmp(got, want, n) ? fail("got %.*s", n, got) : 0;
}

static int request(char *target, int nonblock, long number)
{
	char host[64], port[8], id[64];
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *to;
	if (sscanf(target, "%63[^:]:%7[0-9]=%63s", host, port, id) != 3)
		die(target);
	int e = getaddrinfo(host, port, &hints, &to);
	if (e)
		return fail("getaddrinfo %s: %s", host, gai_strerror(e));
	int s = socket(AF_INET, SOCK_STREAM | (nonblock ? SOCK_NONBLOCK : 0), 0);
	int r = s < 0 ? fail("socket") : exchange(s, nonblock, to, id, number);
	close(s);
	freeaddrinfo(to);
	return r;
}

static void ask(const char *stop, int pause, int nonblock, char **targets, int n)
{
	long total = 0;
	time_t said = 0;
	for (long i = 0; access(stop, F_OK); i++) {
		time_t began = time(NULL);
		if (request(targets[i % n], nonblock, i))
			printf("failed %s %s, after %ld s\n", targets[i % n], why, time(NULL) - began);
		else
			total++;
		if (time(NULL) != said) {
			said = time(NULL);
			printf("at %ld\n", total);
			fflush(stdout);
		}
		usleep(pause);
	}
	printf("done %ld\n", total);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 5 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]), argv[3], atoi(argv[4]));
	else if (argc == 4 && !strcmp(argv[1], "poll"))
		serve_poll(atoi(argv[2]), argv[3]);
	else if (argc >= 5 && !strncmp(argv[1], "ask", 3))
		ask(argv[2], atoi(argv[3]), argv[1][3] != 0, argv + 4, argc - 4);
	else
		return 2;
	return 0;
}
