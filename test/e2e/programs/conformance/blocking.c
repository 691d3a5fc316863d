// Blocking or not, signals, and the ends of threads and processes that wait.
#include "conformance.h"

static int connect_at(int fd, const char *ip, int port)
{
	struct address a = at(ip, port);
	return connect(fd, &a.sa, a.len);
}

static volatile int hits;
static void hit(int unused) { (void)unused, hits++; }

static void on_signal(int flags)
{
	struct sigaction s = {.sa_handler = hit, .sa_flags = flags};
	sigaction(SIGUSR1, &s, 0);
}

static void raises(void *thread) { pthread_kill(*(pthread_t *)thread, SIGUSR1); }
static void connects(void *port) { connect_port(new_socket(SOCK_STREAM), *(int *)port); }

FAMILIES(signal_accept)
{
	int listener = new_listener(), port = port_of(listener);
	pthread_t self = pthread_self();
	on_signal(0);
	in_ms(250, raises, &self);
	DO("without SA_RESTART", accept(listener, 0, 0));
	say("handler", "%d", hits);
	on_signal(SA_RESTART);
	in_ms(250, raises, &self);
	in_ms(500, connects, &port);
	accept_shown("with SA_RESTART", listener, 0);
	say("handler", "%d", hits);
	on_signal(SA_RESTART);
	struct timeval t = {0, 600000};
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	in_ms(250, raises, &self);
	DO("with SA_RESTART and SO_RCVTIMEO", accept(listener, 0, 0));
	say("handler", "%d", hits);
}

CASE(signal_connect)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t self = pthread_self();
	on_signal(0);
	in_ms(250, raises, &self);
	DO("without SA_RESTART", connect_at(fd, BLACKHOLE, 80));
	say("handler", "%d", hits);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	DO("under way", connect_at(fd, BLACKHOLE, 80));
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval t = {0, 600000};
	on_signal(SA_RESTART);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	in_ms(250, raises, &self);
	DO("with SA_RESTART and SO_SNDTIMEO", connect_at(fd, BLACKHOLE, 80));
	say("handler", "%d", hits);
}

static int waits_in;
static void *accepts(void *unused)
{
	accept(waits_in, 0, 0);
	return unused;
}
static void *connects_nowhere(void *unused)
{
	connect_at(waits_in, BLACKHOLE, 80);
	return unused;
}

static void cancel(const char *what, void *(*f)(void *))
{
	pthread_t t;
	void *result = 0;
	pthread_create(&t, 0, f, 0);
	pause_ms(100);
	pthread_cancel(t);
	DO(what, pthread_join(t, &result));
	say(what, "%s", result == PTHREAD_CANCELED ? "cancelled" : "ended");
}

FAMILIES(cancel_accept)
{
	waits_in = new_listener();
	cancel("accept", accepts);
	connected_to(waits_in);
	accept_shown("afterwards", waits_in, 0);
}

CASE(cancel_connect)
{
	waits_in = socket(AF_INET, SOCK_STREAM, 0);
	cancel("connect", connects_nowhere);
	DO("close", close(waits_in));
}

static void accepts_in_child(void *fd) { accept(*(int *)fd, 0, 0); }
static void connects_in_child(void *fd) { connect_at(*(int *)fd, BLACKHOLE, 80); }

static void kill_child(const char *what, void (*f)(void *), int *fd, int signal)
{
	int pid = child(f, fd);
	pause_ms(100);
	kill(pid, signal);
	reap(what, pid);
}

FAMILIES(kill_accept)
{
	int listener = new_listener();
	kill_child("SIGKILL", accepts_in_child, &listener, SIGKILL);
	kill_child("SIGTERM", accepts_in_child, &listener, SIGTERM);
	connected_to(listener);
	accept_shown("afterwards", listener, 0);
}

CASE(kill_connect)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	kill_child("SIGKILL", connects_in_child, &fd, SIGKILL);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	kill_child("SIGTERM", connects_in_child, &fd, SIGTERM);
}

CASE(stop_and_continue)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	listen(listener, 5);
	int port = port_of(listener), pid = child(accepts_in_child, &listener);
	pause_ms(100);
	kill(pid, SIGSTOP);
	pause_ms(50);
	DO("connect", connect_at(socket(AF_INET, SOCK_STREAM, 0), "127.0.0.1", port));
	kill(pid, SIGCONT);
	reap("child", pid);
}

FAMILIES(nonblocking_dup)
{
	int listener = new_listener(), copy = dup(listener), on = 1, off = 0;
	DO("FIONBIO on the copy", ioctl(copy, FIONBIO, &on));
	DO("accept on the other", accept(listener, 0, 0));
	say("flags", "%d %d", (fcntl(listener, F_GETFL) & O_NONBLOCK) != 0, (fcntl(copy, F_GETFL) & O_NONBLOCK) != 0);
	connected_to(listener);
	accept_shown("somebody", copy, 0);
	DO("FIONBIO off", ioctl(listener, FIONBIO, &off));
	struct timeval t = {0, 300000};
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	TIMED("accept", 300, accept(copy, 0, 0));
	DO("O_NONBLOCK by fcntl", fcntl(listener, F_SETFL, O_NONBLOCK));
	DO("accept", accept(copy, 0, 0));
	close(listener);
	connect_port(new_socket(SOCK_STREAM), port_of(copy));
	accept_shown("the other is closed", copy, 0);
}

static void sets_nonblocking(void *fd) { fcntl(*(int *)fd, F_SETFL, O_NONBLOCK); }

FAMILIES(nonblocking_meanwhile)
{
	int listener = new_listener(), port = port_of(listener);
	in_ms(100, sets_nonblocking, &listener);
	in_ms(300, connects, &port);
	accept_shown("O_NONBLOCK set while it waits", listener, 0);
}

CASE(others_go_on)
{
	// What one thread waits for must not delay another.
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	listen(listener, 5);
	waits_in = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t t;
	for (int i = 0; i < 4; i++)
		pthread_create(&t, 0, connects_nowhere, 0);
	shutdown(0, 0);
	pause_ms(50);
	long long began = milliseconds();
	for (int i = 0; i < 50; i++) {
		int c = socket(AF_INET, SOCK_STREAM, 0);
		connect_at(c, "127.0.0.1", port_of(listener));
		close(accept(listener, 0, 0));
		close(c);
	}
	show("50 connections meanwhile", 0, 0, 0, (milliseconds() - began) / 4, 0);
}

FAMILIES(epoll_connect)
{
	int listener = new_listener(), fd = new_socket(SOCK_STREAM | SOCK_NONBLOCK), ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLOUT | EPOLLIN | EPOLLET}, out = {0};
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	int n = epoll_wait(ep, &out, 1, 0);
	say("before", "%d %s", n, events_text(out.events));
	connect_port(fd, port_of(listener));
	n = epoll_wait(ep, &out, 1, 1000);
	say("connected", "%d %s", n, events_text(out.events));
	DO("no second edge", epoll_wait(ep, &out, 1, 50));
	int s = accept_shown("accept", listener, 0);
	DO("send", send(s, "x", 1, 0));
	n = epoll_wait(ep, &out, 1, 1000);
	say("a byte", "%d %s", n, events_text(out.events));
	close(s);
	n = epoll_wait(ep, &out, 1, 1000);
	say("closed", "%d %s", n, events_text(out.events));
	int refused = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
	epoll_ctl(ep, EPOLL_CTL_ADD, refused, &e);
	epoll_wait(ep, &out, 1, 0);
	connect_port(refused, 1);
	n = epoll_wait(ep, &out, 1, 1000);
	say("refused", "%d %s", n, events_text(out.events));
}
