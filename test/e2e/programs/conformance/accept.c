// accept(2) and accept4(2).
#include "conformance.h"

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

FAMILIES(accept_addresses)
{
	int listener = new_listener();
	socklen_t len;
	for (int room = 0; room <= 32; room += 4) {
		struct address a;
		memset(&a, 0xee, sizeof a);
		int c = connected_to(listener);
		len = room;
		char what[32];
		snprintf(what, sizeof what, "room for %d", room);
		int s = DO(what, accept(listener, &a.sa, &len));
		say(what, "length %d, next byte %02x, family %d", (int)len, ((unsigned char *)&a)[room], room >= 2 ? a.sa.sa_family : -1);
		close(s);
		close(c);
	}
	struct address a;
	connected_to(listener);
	DO("no address, a length", ({ len = 16; accept(listener, 0, &len); }));
	say("its length", "%d", (int)len);
	connected_to(listener);
	DO("an address without a length", accept(listener, &a.sa, 0));
	fcntl(listener, F_SETFL, O_NONBLOCK);
	DO("is it lost?", accept(listener, 0, 0));
	connected_to(listener);
	len = -1;
	DO("a negative length", accept(listener, &a.sa, &len));
	connected_to(listener);
	len = 16;
	DO("a bad address", accept(listener, (void *)8, &len));
	connected_to(listener);
	DO("a bad length", accept(listener, &a.sa, (void *)8));
	accept_shown("a good one", listener, 0);
}

FAMILIES(accept_flags)
{
	int listener = new_listener();
	connected_to(listener);
	DO("flag 1", accept4(listener, 0, 0, 1));
	DO("flag -1", accept4(listener, 0, 0, -1));
	DO("bad flag of a bad descriptor", accept4(99, 0, 0, 1));
	int s = accept_shown("no flags", listener, 0);
	say("no flags", "%o %d", fcntl(s, F_GETFL), fcntl(s, F_GETFD));
	connected_to(listener);
	s = accept_shown("both", listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
	say("both", "%o %d", fcntl(s, F_GETFL), fcntl(s, F_GETFD));
	fcntl(listener, F_SETFL, O_NONBLOCK);
	fcntl(listener, F_SETFD, FD_CLOEXEC);
	DO("nobody there", accept(listener, 0, 0));
	connected_to(listener);
	s = accept_shown("from a non-blocking listener", listener, 0);
	say("from a non-blocking listener", "%o %d", fcntl(s, F_GETFL), fcntl(s, F_GETFD));
	say("the listener's", "%o %d", fcntl(listener, F_GETFL), fcntl(listener, F_GETFD));
}

FAMILIES(accept_inherits)
{
	int listener = new_listener();
	struct timeval t = {3, 0};
	struct linger l = {1, 7};
	setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &(int){20000}, sizeof(int));
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	setsockopt(listener, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	setsockopt(listener, IPPROTO_TCP, TCP_KEEPIDLE, &(int){77}, sizeof(int));
	setsockopt(listener, IPPROTO_IP, IP_TOS, &(int){16}, sizeof(int));
	connected_to(listener);
	int s = accept_shown("accept", listener, 0);
	say("options", "keepalive %d rcvbuf %d nodelay %d keepidle %d tos %d reuseaddr %d", option(s, SOL_SOCKET, SO_KEEPALIVE),
	    option(s, SOL_SOCKET, SO_RCVBUF), option(s, IPPROTO_TCP, TCP_NODELAY), option(s, IPPROTO_TCP, TCP_KEEPIDLE),
	    option(s, IPPROTO_IP, IP_TOS), option(s, SOL_SOCKET, SO_REUSEADDR));
	struct timeval got = {0};
	socklen_t len = sizeof got;
	getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &got, &len);
	len = sizeof l;
	getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &len);
	say("times", "%ld, linger %d %d", (long)got.tv_sec, l.l_onoff, l.l_linger);
	say("is", "domain %d type %d protocol %d accepts %d", option(s, SOL_SOCKET, SO_DOMAIN), option(s, SOL_SOCKET, SO_TYPE),
	    option(s, SOL_SOCKET, SO_PROTOCOL), option(s, SOL_SOCKET, SO_ACCEPTCONN));
}

FAMILIES(accept_timeout)
{
	int listener = new_listener();
	struct timeval t = {0, 300000};
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	TIMED("SO_RCVTIMEO", 300, accept(listener, 0, 0));
	TIMED("again", 300, accept_shown("nobody", listener, 0));
	t.tv_usec = 0;
	t.tv_sec = 5;
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	connected_to(listener);
	accept_shown("somebody", listener, 0);
	getsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &t, &(socklen_t){sizeof t});
	say("SO_RCVTIMEO", "%ld", (long)t.tv_sec);
}

static void shuts(void *fd) { shutdown(*(int *)fd, SHUT_RDWR); }
static void closes(void *fd) { close(*(int *)fd); }
static void connects(void *port) { connect_port(new_socket(SOCK_STREAM), *(int *)port); }

FAMILIES(accept_shutdown)
{
	int listener = new_listener();
	in_ms(250, shuts, &listener);
	DO("shutdown by another thread", accept(listener, 0, 0));
	DO("again", accept(listener, 0, 0));
	own_name("afterwards", listener);
	DO("listen again", listen(listener, 1));
	own_name("listening again", listener);
}

FAMILIES(accept_closed)
{
	int listener = new_listener(), port = port_of(listener), fd = listener;
	in_ms(250, closes, &fd);
	in_ms(500, connects, &port);
	accept_shown("closed by another thread", listener, 0);
	DO("again", accept(listener, 0, 0));
	DO("connect now", connect_port(new_socket(SOCK_STREAM), port));
}

FAMILIES(accept_aborted)
{
	int listener = new_listener(), client = connected_to(listener);
	struct linger reset = {1, 0};
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(client);
	pause_ms(20);
	int s = accept_shown("reset meanwhile", listener, 0);
	char b;
	DO("read", read(s, &b, 1));
	peer_name("reset", s);
	own_name("reset", s);
	client = connected_to(listener);
	DO("send", send(client, "bye", 3, 0));
	close(client);
	s = accept_shown("closed meanwhile", listener, 0);
	DO("read", read(s, &b, 1));
	peer_name("closed", s);
}

static int shared_listener;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
static int got;

static void *accepts(void *unused)
{
	int s = accept(shared_listener, 0, 0);
	pthread_mutex_lock(&counting);
	got += s >= 0;
	pthread_mutex_unlock(&counting);
	return unused;
}

FAMILIES(accept_threads)
{
	shared_listener = new_listener();
	pthread_t t[6];
	for (int i = 0; i < 6; i++)
		pthread_create(&t[i], 0, accepts, 0);
	pause_ms(50);
	for (int i = 0; i < 6; i++)
		connected_to(shared_listener);
	for (int i = 0; i < 6; i++)
		pthread_join(t[i], 0);
	say("six threads", "%d accepted", got);
	DO("nothing left", ({ fcntl(shared_listener, F_SETFL, O_NONBLOCK); accept(shared_listener, 0, 0); }));
}

static void serves_one(void *fd)
{
	int s = accept(*(int *)fd, 0, 0);
	if (write(s, "x", 1) != 1)
		say("child", "%s", error_name(errno));
	close(s);
}

FAMILIES(accept_processes)
{
	int listener = new_listener(), pids[4], answers = 0;
	for (int i = 0; i < 4; i++)
		pids[i] = child(serves_one, &listener);
	pause_ms(50);
	for (int i = 0; i < 4; i++) {
		char b;
		int c = connected_to(listener);
		answers += read(c, &b, 1) == 1;
	}
	say("four processes", "%d answers", answers);
	for (int i = 0; i < 4; i++)
		reap("child", pids[i]);
}

FAMILIES(accept_order)
{
	int listener = new_listener(), c[5], same = 0;
	for (int i = 0; i < 5; i++)
		c[i] = connected_to(listener);
	for (int i = 0; i < 5; i++) {
		struct address a = {.len = sizeof a.all};
		accept(listener, &a.sa, &a.len);
		same += ntohs(a.in.sin_port) == port_of(c[i]);
	}
	say("in the order of connecting", "%d of 5", same);
}

FAMILIES(accept_limit)
{
	int listener = new_listener();
	int c = connected_to(listener);
	DO("send", send(c, "x", 1, 0));
	struct rlimit r = {0, 64};
	int top = dup(c);
	close(top);
	r.rlim_cur = top;
	setrlimit(RLIMIT_NOFILE, &r);
	accept_shown("at the limit", listener, 0);
	accept_shown("again", listener, 0);
	say("it is still there", "%s", events_text(wait_for(listener, POLLIN, 0)));
	r.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &r);
	int s = accept_shown("with room", listener, 0);
	char b;
	DO("its byte", read(s, &b, 1));
}

FAMILIES(accept_edges)
{
	int listener = new_listener(), ep = epoll_create1(0);
	fcntl(listener, F_SETFL, O_NONBLOCK);
	struct epoll_event e = {.events = EPOLLIN | EPOLLET}, out = {0};
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
	DO("nobody", epoll_wait(ep, &out, 1, 0));
	connected_to(listener);
	DO("somebody", epoll_wait(ep, &out, 1, 1000));
	DO("no new edge", epoll_wait(ep, &out, 1, 50));
	connected_to(listener);
	DO("a second one", epoll_wait(ep, &out, 1, 1000));
	accept_shown("first", listener, 0);
	DO("no edge by accept", epoll_wait(ep, &out, 1, 50));
	accept_shown("second", listener, 0);
	DO("none left", accept(listener, 0, 0));
	connected_to(listener);
	DO("a third one", epoll_wait(ep, &out, 1, 1000));
	e.events = EPOLLIN;
	epoll_ctl(ep, EPOLL_CTL_MOD, listener, &e);
	DO("level", epoll_wait(ep, &out, 1, 1000));
	DO("level again", epoll_wait(ep, &out, 1, 1000));
	accept_shown("third", listener, 0);
	DO("level, none left", epoll_wait(ep, &out, 1, 50));
}
